"""A run of the tests, a benchmark or the sandbox leaves nothing behind when it is killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.sandbox.ports import free_port
from devtools.services import REPOSITORY
from devtools.waiting import eventually
from tests.support.pgbouncer import is_installed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SERVICES = {"-m gateway", "-m dispatcher", "-m notifier"}
PROXY = {"pgbouncer"} if is_installed() else set()
PORTS = ("PORT", "PEER_PORT", "MAIL_PORT", "AWS_PORT", "ADMIN_PORT")


@pytest.fixture
def folder() -> Iterator[Path]:
    """The run's temporary directory, by which its processes are known."""
    folder = Path(tempfile.mkdtemp(prefix="opencloud-killed-"))
    folder.chmod(0o755)  # PostgreSQL may run as another user
    yield folder
    shutil.rmtree(folder)


def processes_in(folder: Path) -> dict[int, str]:
    """Command lines of the processes that name the folder there, in their environment or as their
    working directory."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            shown = f"{command} {(process / 'environ').read_bytes()} {(process / 'cwd').readlink()}"
        except OSError:  # it has ended, or is not ours
            continue
        if str(folder) in shown:
            found[int(process.name)] = command
    return found


def missing(programs: set[str], processes: dict[int, str]) -> set[str]:
    return {name for name in programs if not any(name in line for line in processes.values())}


@pytest.mark.parametrize(
    ("arguments", "programs"),
    [
        (
            ["pytest", "-n", "1", "-p", "no:cacheprovider", "tests/processes/hanging.py"],
            {"-m pytest", "-m gateway", "moto.server", "postgres", *PROXY},
        ),
        (
            ["benchmarks.soak", "--database", "postgresql", "--seconds", "600"],
            {*SERVICES, "postgres"},
        ),
        (
            ["deploy.sandbox", "--folder", "FOLDER"],
            {*SERVICES, "moto.server", "deploy.sandbox.worker"},
        ),
    ],
    ids=["tests", "soak", "sandbox"],
)
async def test_a_killed_run_leaves_neither_processes_nor_databases_behind(
    folder: Path, arguments: list[str], programs: set[str]
) -> None:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {name: str(free_port(in_a_row=3)) for name in PORTS}  # of the sandbox
    log = folder / "output"
    with log.open("wb") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", *(text.replace("FOLDER", str(folder)) for text in arguments)],
            cwd=REPOSITORY,
            env={**environment, "TMPDIR": str(folder)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        await eventually(
            lambda: not missing(programs, processes_in(folder)) or run.poll() is not None,
            within=60,
        )
    finally:
        started = processes_in(folder)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert not missing(programs, started), log.read_text()
    await eventually(lambda: not processes_in(folder), within=10)
    data = {found[1] for line in started.values() if (found := re.search(r"-D (\S+)", line))}
    assert bool(data) == ("postgres" in programs)
    assert not [place for place in data if Path(place).parent.exists()]
