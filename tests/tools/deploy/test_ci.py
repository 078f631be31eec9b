"""`.ci/run`: which Pythons the quick tests run under."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.deploy.places import REPOSITORY

OWN = "{}.{}".format(*sys.version_info)


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def python(path: Path, version: str) -> None:
    """An interpreter that knows where it is, and its version."""
    script(path, f'case "$2" in *executable*) echo "$0" ;; *) echo {version} ;; esac')


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which `make` and the interpreters on PATH are fakes."""
    for folder in (".ci", ".venv/bin", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(REPOSITORY / ".ci/run", tmp_path / ".ci")
    script(tmp_path / "bin/make", 'echo make "$@"; case " $* " in *" $FAILING "*) exit 1 ;; esac')
    for name in (".venv/bin/python", f"bin/python{OWN}"):
        python(tmp_path / name, OWN)
    script(tmp_path / "bin/python3.98", "echo 'pyenv: python3.98: command not found' >&2; exit 127")
    python(tmp_path / "bin/python3.99", "3.99")
    return tmp_path


def run(checkout: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / ".ci/run"],
        env={"PATH": f"{checkout}/bin:{os.defpath}", "FAILING": "", **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_each_other_python_that_works_has_an_environment_of_its_own(checkout: Path) -> None:
    ran = run(checkout, PYTHONS=f"python{OWN} python3.97 python3.98 python3.99")
    assert ran.returncode == 0
    assert ran.stdout.splitlines() == [
        "make --keep-going check",
        "CI: python3.97 is not on this machine",
        "CI: python3.98 is not on this machine",
        "CI: quick tests under python3.99",
        f"make quick PYTHON={checkout}/bin/python3.99 VENV=.venv-python3.99",
    ]


def test_no_further_python_is_tried_where_there_is_none(checkout: Path) -> None:
    ran = run(checkout, PYTHONS="")
    assert (ran.returncode, ran.stdout) == (0, "make --keep-going check\n")


@pytest.mark.parametrize("failing", ["check", "quick"])
def test_a_failure_under_any_python_fails(checkout: Path, failing: str) -> None:
    assert run(checkout, PYTHONS="python3.99", FAILING=failing).returncode != 0
