"""Ports reserved by several processes."""

import os
import subprocess
import sys

from deploy.sandbox.ports import free_port
from devtools.services import REPOSITORY

TAKE = """
import itertools, random, sys
from deploy.sandbox.ports import free_port
wanted = itertools.chain([int(sys.argv[1])], range(10_000, 32_000))
random.choice = lambda _: next(wanted)
print(free_port())
"""


def test_a_port_that_is_given_out_and_not_used_yet_is_given_to_no_other_process() -> None:
    mine = free_port()
    other = subprocess.run(
        [sys.executable, "-c", TAKE, str(mine)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(other.stdout) != mine
