"""The databases that services run on, of both kinds, reached without their engine or event loop."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import make_url

from common.config.settings import DatabaseSettings
from common.database.engine import Database
from common.database.schema import migrate
from devtools.postgres import Server, run_apart

Kind = Literal["sqlite", "postgresql"]
KINDS: Final[tuple[Kind, ...]] = ("sqlite", "postgresql")
TITLES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

_BUSY_TIMEOUT: Final = 30.0
"""Seconds for a connection or a lock: late rather than not, where many share few cores."""


def database_settings(url: str, *, pool_size: int = 10) -> DatabaseSettings:
    """Settings for a database URL as it stands in the services' environment."""
    driver = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"
    address = make_url(url).set(drivername=driver)
    return DatabaseSettings(url=address, pool_size=pool_size, pool_timeout=_BUSY_TIMEOUT)


async def migrate_database(url: str) -> None:
    """Bring a database up to the newest schema."""
    database = Database(database_settings(url))
    try:
        await migrate(database)
    finally:
        await database.close()


@dataclass(frozen=True)
class RawDatabase:
    """A database by plain SQL, each statement in its own transaction; blocks."""

    url: str

    @property
    def kind(self) -> Kind:
        return "sqlite" if self.is_sqlite else "postgresql"

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @property
    def title(self) -> str:
        return TITLES[self.kind]

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return Path(self.url.removeprefix("sqlite:///"))

    def execute(self, *statements: str) -> None:
        self._run(statements)

    def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        (found,) = self._run([statement])
        return found

    def series(self, count: int) -> str:
        """A FROM item `series` with one column `n`, from 1 to `count`."""
        if self.is_sqlite:
            return (
                "(WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted"
                f" WHERE n < {count}) SELECT n FROM counted) AS series"
            )
        return f"generate_series(1, {count}) AS series(n)"

    def ago(self, seconds: str) -> str:
        """The time `seconds` ago (an SQL expression), in the format that the services store."""
        if self.is_sqlite:
            return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', -({seconds}) || ' seconds')"
        return f"timezone('utc', now()) - make_interval(secs => {seconds})"

    def json(self, expression: str) -> str:
        """Convert an expression of JSON text to the type of a JSON column."""
        return expression if self.is_sqlite else f"CAST({expression} AS json)"

    def _run(self, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
        """The rows of each statement."""
        if self.is_sqlite:
            file = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT, isolation_level=None)
            with contextlib.closing(file):
                return [file.execute(statement).fetchall() for statement in statements]

        async def run() -> list[list[tuple[Any, ...]]]:
            connection: Any = await asyncpg.connect(self.url)
            try:
                found = [await connection.fetch(line, timeout=None) for line in statements]
            finally:
                await connection.close()
            return [[tuple(row) for row in rows] for rows in found]

        return run_apart(run())


@contextlib.contextmanager
def fresh_database(kind: Kind, server: Server | None, folder: Path) -> Iterator[RawDatabase]:
    """A migrated, empty database, dropped at the end; PostgreSQL needs a `server`."""
    if kind == "sqlite":
        database = RawDatabase(f"sqlite:///{folder}/{uuid4().hex}.db")
        run_apart(migrate_database(database.url))
        yield database
        return
    assert server is not None
    name = server.create_database()
    try:
        database = RawDatabase(server.url_of(name))
        run_apart(migrate_database(database.url))
        yield database
    finally:
        server.drop_database(name)
