"""Access to the database: one engine, short transactions, one exception for an outage.

PostgreSQL and SQLite run the same Core statements. Their differences live here: how a transaction
begins, and the expression for the database's clock (errors: `common.database.errors`).
"""

import asyncio
import contextlib
import copy
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final, Self

import orjson
from sqlalchemy import ColumnElement, DateTime, Float, Integer, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from common.config.settings import DatabaseSettings
from common.database.errors import DatabaseUnavailable, translated
from common.database.pool import ConnectionPool, ConnectionShare

_LOCK_TIMEOUT: Final = 5.0
"""Seconds that a writer waits for SQLite's one write lock."""

_PLAN_ANEW: Final = text("SET LOCAL plan_cache_mode = force_custom_plan")

_AUTOCOMMIT: Final = "opencloud_autocommit"


class utc_now(FunctionElement[Any]):  # noqa: N801 - reads like the SQL function that it is
    """The database's clock in UTC, plus `seconds`; a timestamp without time zone."""

    type = DateTime()
    inherit_cache = True
    name = "utc_now"

    def __init__(self, seconds: ColumnElement[float] | float = 0.0) -> None:
        super().__init__(seconds)


@compiles(utc_now, "postgresql")
def _postgresql_now(element: utc_now, compiler: Any, **kw: Any) -> str:
    (seconds,) = element.clauses
    shift = compiler.process(seconds, **kw)
    return (
        "(timezone('utc', statement_timestamp())"
        f" + make_interval(secs => CAST({shift} AS DOUBLE PRECISION)))"
    )


@compiles(utc_now, "sqlite")
def _sqlite_now(element: utc_now, compiler: Any, **kw: Any) -> str:
    # the text that SQLAlchemy's DateTime stores, so that stored and computed times compare
    (seconds,) = element.clauses
    shift = compiler.process(seconds, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', ({shift}) || ' seconds')"


class epoch_now(FunctionElement[Any]):  # noqa: N801 - reads like the SQL function that it is
    """The database's clock in seconds since the epoch."""

    type = Float()
    inherit_cache = True
    name = "epoch_now"


@compiles(epoch_now, "postgresql")
def _postgresql_epoch(element: epoch_now, compiler: Any, **kw: Any) -> str:  # noqa: ARG001
    return "CAST(extract(epoch FROM statement_timestamp()) AS DOUBLE PRECISION)"


@compiles(epoch_now, "sqlite")
def _sqlite_epoch(element: epoch_now, compiler: Any, **kw: Any) -> str:  # noqa: ARG001
    return "((julianday('now') - 2440587.5) * 86400.0)"


class byte_length(FunctionElement[Any]):  # noqa: N801 - reads like the SQL function that it is
    """The bytes of a text. PostgreSQL knows them without reading one that is stored apart."""

    type = Integer()
    inherit_cache = True
    name = "byte_length"


@compiles(byte_length, "postgresql")
def _postgresql_bytes(element: byte_length, compiler: Any, **kw: Any) -> str:
    return f"octet_length({compiler.process(element.clauses, **kw)})"


@compiles(byte_length, "sqlite")
def _sqlite_bytes(element: byte_length, compiler: Any, **kw: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **kw)} AS BLOB))"


class Database:
    """Connections to the shared database.

    Every method raises `DatabaseUnavailable` when the database is away or the pool is exhausted,
    and SQLAlchemy's own errors for faulty statements.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self.is_sqlite = settings.is_sqlite
        self.engine = _create_engine(settings)
        self._write_lock = asyncio.Lock()
        self._share: AbstractAsyncContextManager[None] = nullcontext()
        self._autocommit: dict[str, Any] = (
            {_AUTOCOMMIT: True} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        )

    def share(self, connections: int) -> Self:
        """The same database for callers that use at most so many of its connections at a time, so
        that the others of the pool are free for those who do not call through the share."""
        shared = copy.copy(self)
        timeout = self.settings.pool_timeout
        shared._share = ConnectionShare(connections, timeout=timeout)  # noqa: SLF001 - our own class
        return shared

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction, committed on exit; immediate on SQLite, so that it never fails
        half-way because another process wrote meanwhile."""
        with translated():
            if not self.is_sqlite:
                async with self._share, self.engine.begin() as connection:
                    yield connection
            else:
                async with self._writing_alone(), self._share, self.engine.begin() as connection:
                    yield connection

    @asynccontextmanager
    async def _writing_alone(self) -> AsyncIterator[None]:
        """Serialise this process's writers.

        SQLite has one write lock, for which connections wait by polling: among many of them one
        never gets it, and readers find no connection meanwhile.
        """
        try:
            async with asyncio.timeout(_LOCK_TIMEOUT):
                await self._write_lock.acquire()
        except TimeoutError as error:
            raise DatabaseUnavailable("other writers took too long") from error
        try:
            yield
        finally:
            self._write_lock.release()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for single reads, in autocommit: no transaction to begin and end."""
        with translated():
            async with self._share, self.engine.connect() as connection:
                yield await connection.execution_options(**self._autocommit)

    @asynccontextmanager
    async def reading_anew(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reads that PostgreSQL plans each time, by their very parameters.

        The plan that it otherwise keeps for a prepared statement fits the average user, and reads
        everything of one with many rows. It costs two round trips and the planning.
        """
        if self.is_sqlite:
            async with self.reading() as connection:
                yield connection
        else:
            async with self.transaction() as connection:
                await connection.execute(_PLAN_ANEW)
                yield connection

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one writing statement, which is a transaction by itself.

        On PostgreSQL this saves two of three round trips.
        """
        async with self.transaction() if self.is_sqlite else self.reading() as connection:
            yield connection

    async def ping(self) -> None:
        """One round trip. Raises `DatabaseUnavailable`."""
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


def padded(keys: Sequence[Any]) -> list[Any]:
    """The keys, the last one repeated up to a power of two, so that few statements are prepared."""
    size = 1 << (len(keys) - 1).bit_length()
    return [*keys, *[keys[-1]] * (size - len(keys))]


def _create_engine(settings: DatabaseSettings) -> AsyncEngine:
    engine = create_async_engine(
        settings.url,
        poolclass=ConnectionPool,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.pool_timeout,
        pool_use_lifo=not settings.is_sqlite,
        connect_args=_connect_arguments(settings),
        json_serializer=_dumps,
        hide_parameters=True,  # errors are logged, users' data is not
    )
    if settings.is_sqlite:
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_immediate)
    return engine


def _connect_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    if settings.is_sqlite:
        return {"timeout": _LOCK_TIMEOUT, "factory": _SQLiteConnection}
    arguments: dict[str, Any] = {
        "timeout": settings.connect_timeout,
        "command_timeout": settings.command_timeout,
        "server_settings": {"application_name": "opencloud", "jit": "off"},
    }
    if not settings.statement_cache:
        # behind a transaction-pooling proxy each statement may meet another server connection
        arguments |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: "",
            "server_settings": {"application_name": "opencloud"},
        }
    return arguments


class _SQLiteConnection(sqlite3.Connection):
    """Ends its transaction when it is closed.

    SQLite itself does so only once every cursor is gone. The cursors of a cancelled call stay in
    its traceback until the collector runs, and nothing else could write meanwhile.
    """

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.rollback()
        super().close()


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # `_begin_immediate` begins transactions
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Any) -> None:
    if not connection.get_execution_options().get(_AUTOCOMMIT):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
