"""A test run that is killed leaves nothing behind."""

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

from devtools.services import REPOSITORY
from devtools.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PROGRAMS = {"pytest", "gateway", "moto.server", "postgres"}
HANGING = "tests/processes/hanging.py"


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


async def test_a_killed_test_run_leaves_neither_processes_nor_databases_behind(
    folder: Path,
) -> None:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    log, is_ready = folder / "output", (folder / "ready").exists
    with log.open("wb") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", HANGING],
            cwd=REPOSITORY,
            env={**environment, "TMPDIR": str(folder)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        await eventually(lambda: is_ready() or run.poll() is not None, within=60)
        assert is_ready(), log.read_text()
    finally:
        started = processes_in(folder)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    missing = {name for name in PROGRAMS if not any(name in line for line in started.values())}
    assert not missing, log.read_text()
    await eventually(lambda: not processes_in(folder), within=10)
    data = {found[1] for line in started.values() if (found := re.search(r"-D (\S+)", line))}
    assert data
    assert not [place for place in data if Path(place).parent.exists()]
