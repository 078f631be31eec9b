"""The databases under test: a SQLite file, or a PostgreSQL server of our own as it comes."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import make_url

from common.config.settings import DatabaseSettings
from devtools.postgres import Server, own_server

T = TypeVar("T")

Kind = Literal["sqlite", "postgresql"]
KINDS: Final[tuple[Kind, ...]] = ("sqlite", "postgresql")
TITLES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

_BUSY_TIMEOUT: Final = 30.0


@dataclass(frozen=True)
class TestDatabase:
    """A database that the services use as well; statements are written for both kinds."""

    __test__ = False

    kind: Kind
    url: str

    @property
    def is_sqlite(self) -> bool:
        return self.kind == "sqlite"

    @property
    def title(self) -> str:
        return TITLES[self.kind]

    @property
    def path(self) -> str:
        """Where the SQLite file is."""
        return self.url.removeprefix("sqlite:///")

    def execute(self, *statements: str) -> None:
        """Run statements, each a transaction of its own."""
        if self.is_sqlite:
            with self._connect_sqlite() as connection:
                for statement in statements:
                    connection.execute(statement)
            return

        async def run(connection: Any) -> None:
            for statement in statements:
                await connection.execute(statement, timeout=None)

        self._with_postgresql(run)

    def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""
        if self.is_sqlite:
            with self._connect_sqlite() as connection:
                return connection.execute(statement).fetchall()

        async def run(connection: Any) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in await connection.fetch(statement, timeout=None)]

        return self._with_postgresql(run)

    def series(self, count: int) -> str:
        """A table `series` with one column `n`, from 1 to `count`, for the FROM of a statement."""
        if self.is_sqlite:
            return (
                "(WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted"
                f" WHERE n < {count}) SELECT n FROM counted) AS series"
            )
        return f"generate_series(1, {count}) AS series(n)"

    def ago(self, seconds: str) -> str:
        """The moment so many seconds ago, as the services store it; `seconds` is an expression."""
        if self.is_sqlite:
            return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', -({seconds}) || ' seconds')"
        return f"timezone('utc', now()) - make_interval(secs => {seconds})"

    def json(self, expression: str) -> str:
        """An expression that is JSON text, as a JSON column takes it."""
        return expression if self.is_sqlite else f"CAST({expression} AS json)"

    @contextlib.contextmanager
    def _connect_sqlite(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()

    def _with_postgresql(self, work: Callable[[Any], Awaitable[T]]) -> T:
        async def run() -> T:
            connection: Any = await asyncpg.connect(self.url)
            try:
                return await work(connection)
            finally:
                await connection.close()

        return asyncio.run(run())


@contextlib.contextmanager
def postgresql_server() -> Iterator[Server]:
    """The server of `TEST_DATABASE_URL`, else a durable one of our own. Raises `NoPostgres`."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield Server(url)
        return
    with own_server(durable=True) as server:
        yield server


@contextlib.contextmanager
def fresh_database(kind: Kind, server: Server | None, folder: Path) -> Iterator[TestDatabase]:
    """An empty database, gone afterwards; `server` is for PostgreSQL."""
    if kind == "sqlite":
        yield TestDatabase(kind, f"sqlite:///{folder}/{uuid4().hex}.db")
        return
    assert server is not None
    name = server.create_database()
    try:
        yield TestDatabase(kind, server.url_of(name))
    finally:
        server.drop_database(name)


def driver_settings(url: str, *, pool_size: int = 10) -> DatabaseSettings:
    """Settings for a database URL as the services' environment has it."""
    backend = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"
    return DatabaseSettings(url=make_url(url).set(drivername=backend), pool_size=pool_size)


def version_of(server: Server) -> str:
    """The server's version and where it differs in durability from how it comes."""
    database = TestDatabase("postgresql", server.url)
    names = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
    found = {name: str(database.fetch(f"SHOW {name}")[0][0]) for name in names}
    version = found.pop("server_version")
    return f"{version} ({', '.join(f'{name} {value}' for name, value in found.items())})"
