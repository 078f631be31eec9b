"""A run of the tests, a benchmark or the sandbox leaves nothing behind when it is killed."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


def whole_group(run: subprocess.Popen[bytes]) -> None:
    os.killpg(run.pid, signal.SIGKILL)


def first_process(run: subprocess.Popen[bytes]) -> None:
    run.kill()


def whole_group_by_and_by(run: subprocess.Popen[bytes]) -> None:
    """As `timeout -k` and impatient users do it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        os.killpg(run.pid, number)
        time.sleep(0.1)


def watchers(run: subprocess.Popen[bytes]) -> None:
    """What stands between a run and its servers, and then the run itself, as a kill by name."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == run.pid and b"send_signal" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    run.kill()


TESTS = ["pytest", "-n", "1", "-p", "no:cacheprovider", "tests/processes/hanging.py"]
IN_TESTS = {"-m pytest", "-m gateway", "moto.server", "postgres", *PROXY}
SOAK = ["benchmarks.soak", "--database", "postgresql", "--seconds", "600"]
IN_SOAK = {*SERVICES, "postgres"}
SANDBOX = ["deploy.sandbox", "--folder", "FOLDER"]
IN_SANDBOX = {*SERVICES, "moto.server", "deploy.sandbox.worker"}


@pytest.mark.parametrize(
    ("arguments", "programs", "kill"),
    [
        (TESTS, IN_TESTS, whole_group),
        (TESTS, IN_TESTS, first_process),
        (TESTS, IN_TESTS, whole_group_by_and_by),
        (SOAK, IN_SOAK, whole_group),
        (SOAK, IN_SOAK, watchers),
        (SANDBOX, IN_SANDBOX, whole_group),
    ],
)
async def test_a_killed_run_leaves_neither_processes_nor_databases_behind(
    folder: Path, arguments: list[str], programs: set[str], kill: Callable[[Any], None]
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
    started: dict[int, str] = {}  # until all are there at a time: a soak kills its services, too

    def is_up() -> bool:
        started.clear()
        started.update(processes_in(folder))
        return not missing(programs, started) or run.poll() is not None

    try:
        await eventually(is_up, within=120)
    finally:
        kill(run)
        run.wait()
    assert not missing(programs, started), log.read_text()
    # a worker of pytest-xdist that has lost the first process gives its test some 15 s
    await eventually(lambda: not processes_in(folder), within=60)
    data = {found[1] for line in started.values() if (found := re.search(r"-D (\S+)", line))}
    assert bool(data) == ("postgres" in programs)
    await eventually(lambda: not [place for place in data if Path(place).parent.exists()])


@pytest.mark.parametrize("delay", [0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 2.0, 3.0])
async def test_a_server_whose_parent_is_killed_while_it_starts_or_stops_leaves_nothing_behind(
    folder: Path, delay: float
) -> None:
    """Between two programs as well, where none is running."""
    program = (
        "from pathlib import Path; from devtools import postgres;"
        f" postgres._MEMORY = Path({str(folder)!r});\nprint(flush=True)"
        "\nwhile True:\n  with postgres.own_server(): pass"
    )
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(folder)}
    run = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE
    )
    assert run.stdout is not None
    with run, run.stdout:
        run.stdout.readline()
        await asyncio.sleep(delay)
        run.kill()
    await eventually(lambda: not processes_in(folder), within=30)
    await eventually(lambda: not [*folder.glob("opencloud-postgres-*")], within=30)
