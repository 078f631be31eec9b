"""The supervisor: one sandbox at a time, restarts, and nothing left behind."""

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path

import aiohttp
import pytest

from deploy.sandbox.cognito import UserPool
from deploy.sandbox.exclusive import Children, only_one
from deploy.sandbox.layout import MARKER, REPOSITORY, Folder, Ports, SandboxError, url
from deploy.sandbox.lifeline import tied_to_parent
from deploy.sandbox.ports import LOOPBACK, free_port
from deploy.sandbox.processes import Program
from deploy.sandbox.programs import Catalogue
from deploy.sandbox.supervisor import Supervisor
from deploy.sandbox.walkthrough import overview

SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


class SmallCatalogue(Catalogue):
    """Stand-ins, and services that only respond to their probes."""

    crash = False

    def services(self, pool: UserPool, key_arn: str) -> list[Program]:
        assert pool.pool_id
        assert key_arn.startswith("arn:aws:secretsmanager:")
        programs = []
        for name in ("gateway", "dispatcher"):
            port = free_port()
            command = [sys.executable, "-c", SERVER, str(port)]
            programs.append(self._program(name, command, {}, ready=url(port) + "/"))
        if self.crash:
            dying = [sys.executable, "-c", "raise SystemExit('the settings are wrong')"]
            programs.append(self._program("notifier", dying, {}, ready="http://127.0.0.1:1/"))
        return programs


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "sand box")
    folder.create()
    return folder


@pytest.fixture
def ports() -> Ports:
    return Ports(**{field.name: free_port() for field in fields(Ports)})


@pytest.fixture
def catalogue(folder: Folder, ports: Ports) -> SmallCatalogue:
    return SmallCatalogue(folder, ports, {"PATH": os.environ["PATH"]})


@pytest.fixture
def restarts() -> asyncio.Queue[dict[str, int]]:
    """The process ids after each restart."""
    return asyncio.Queue()


@pytest.fixture
async def supervisor(
    folder: Folder,
    ports: Ports,
    catalogue: SmallCatalogue,
    session: aiohttp.ClientSession,
    restarts: asyncio.Queue[dict[str, int]],
) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(folder, ports, session, catalogue, restarts.put_nowait)
    yield supervisor
    await supervisor.stop(at_once=asyncio.Event())


async def test_losing_the_accounts_ends_the_sandbox(supervisor: Supervisor) -> None:
    await supervisor.start()
    os.kill(supervisor.pids()["aws"], signal.SIGKILL)
    with pytest.raises(SandboxError, match=r"aws ended .*accounts are gone"):
        await supervisor.watch(asyncio.Event())


async def test_a_service_that_does_not_start_is_named_with_the_end_of_its_log(
    supervisor: Supervisor, catalogue: SmallCatalogue
) -> None:
    catalogue.crash = True
    with pytest.raises(SandboxError, match=r"(?s)notifier did not start.*the settings are wrong"):
        await supervisor.start()


async def test_a_service_that_keeps_crashing_ends_the_sandbox(
    supervisor: Supervisor,
    restarts: asyncio.Queue[dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await supervisor.start()
    monkeypatch.setattr("deploy.sandbox.supervisor._QUICK", 3600.0)
    monkeypatch.setattr("deploy.sandbox.supervisor._MOST_QUICK_CRASHES", 2)
    watching = asyncio.create_task(supervisor.watch(asyncio.Event()))
    os.kill(supervisor.pids()["worker"], signal.SIGKILL)
    again = await asyncio.wait_for(restarts.get(), 30)
    os.kill(again["worker"], signal.SIGKILL)
    with pytest.raises(SandboxError, match="worker ended 2 times in a row"):
        await watching


def test_a_closed_terminal_does_not_cut_a_stop_short() -> None:
    code = (
        "from deploy.sandbox.terminal import say, complain\n"
        "input(); say('Stopping'); say('Stopped'); complain('it went on')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, complaint = process.communicate("\n")
    assert (process.returncode, complaint) == (0, "it went on\n")


def test_a_second_sandbox_names_the_first(folder: Folder) -> None:
    first = only_one(folder)
    with first, pytest.raises(SandboxError, match=f"process {os.getpid()}"), only_one(folder):
        pytest.fail("there were two")
    with only_one(folder):
        pass


def test_leftovers_are_ended_only_if_they_are_ours(folder: Folder) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    ours = subprocess.Popen(sleep, env={MARKER: str(folder.root)})
    others = [subprocess.Popen(sleep, env=env) for env in ({}, {MARKER: "/elsewhere"})]
    try:
        children = Children(folder)
        for process in (ours, *others):
            children.remember(process.pid)
        assert children.end_leftovers() == 1
        assert ours.wait(30) == -signal.SIGTERM
        assert [process.poll() for process in others] == [None, None]
        assert children.end_leftovers() == 0
    finally:
        for process in (ours, *others):
            process.kill()
            process.wait()


def test_a_command_is_unchanged_where_the_kernel_cannot_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert tied_to_parent(["true"], signal.SIGTERM) == ["true"]


def test_a_taken_port_is_named_with_its_variable(ports: Ports) -> None:
    ports.check_free()
    with socket.socket() as holder:
        holder.bind((LOOPBACK, ports.peer))
        holder.listen()
        with pytest.raises(SandboxError) as caught:
            ports.check_free()
    assert f"Port {ports.peer}, for the worker-facing API, is taken" in str(caught.value)
    assert "PEER_PORT=" in str(caught.value)


def test_a_port_with_two_uses_is_named(ports: Ports) -> None:
    with pytest.raises(SandboxError, match="for the gateway and for the mail page"):
        Ports(**{**vars(ports), "mail": ports.gateway}).check_free()


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        *(
            ({"MAIL_PORT": text}, "MAIL_PORT must be a port number")
            for text in ("x", "-1", "0", "70000")
        ),
        ({"FILESYSTEM": "nfs"}, "FILESYSTEM must be local or s3, not 'nfs'"),
    ],
)
def test_an_invalid_variable_is_named(
    folder: Folder, ports: Ports, variables: dict[str, str], sentence: str
) -> None:
    with pytest.raises(SandboxError, match=sentence):
        Catalogue(folder, Ports.read(variables), variables)


def test_the_users_environment_does_not_leak_into_the_services(
    folder: Folder, ports: Ports
) -> None:
    odd = {"PROD": "1", "COGNITO_SECRET": "odd", "AWS_PROFILE": "odd", "PYTHONPATH": "/odd"}
    catalogue = Catalogue(folder, ports, {**odd, "PATH": "/bin", "HANDOVER_GRACE": "5"})
    pool = UserPool("http://127.0.0.1:1", "pool", "client")
    for program in catalogue.services(pool, "arn"):
        assert "odd" not in " ".join(program.environment.values())
        assert program.environment["PROD"] == "0"
        assert program.environment["HANDOVER_GRACE"] == "5"
        assert program.folder == folder.root


@pytest.mark.parametrize(
    ("filesystem", "shown"), [("local", "/sand box/user_data"), ("s3", "s3://")]
)
def test_the_overview_shows_the_place_of_users_files(
    folder: Folder, ports: Ports, filesystem: str, shown: str
) -> None:
    where = Catalogue(folder, ports, {"FILESYSTEM": filesystem}).users_files
    assert shown in where
    assert where in overview(folder, ports, {}, where)


def test_the_demo_takes_files_whose_names_hold_blanks() -> None:
    command = ["make", "--dry-run", "demo", "DATA=my data.csv", "CONFIG=/a b/my.yaml"]
    # as from a shell, also where `make test` runs this
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFL"))
    }
    shown = subprocess.run(
        command, cwd=REPOSITORY, env=own, capture_output=True, text=True, check=True
    )
    words = shlex.split(shown.stdout.splitlines()[-1])
    assert words[-4:] == ["--data", "my data.csv", "--config", "/a b/my.yaml"]
