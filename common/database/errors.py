"""What errors of the two databases mean: an outage, or a refusal of our credentials."""

import os
import re
import sqlite3
import ssl
from typing import Final

import asyncpg
from sqlalchemy import ExceptionContext
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_OUTAGES: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    # a connection that broke in the middle of an operation
    asyncpg.InternalClientError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, before the failover is complete
    # conflicts with another transaction; nothing of this one remains
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
_REFUSALS: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
    ssl.SSLCertVerificationError,
)
_LONGEST_CHAIN: Final = 5
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
_SQLITE_OUTAGES: Final = ("locked", "busy", "unable to open", "disk I/O", "is full")


class DatabaseUnavailable(Exception):
    """The database did not answer, or has no free connection; another attempt may succeed."""


class DatabaseRefused(DatabaseUnavailable):
    """The database refuses us: a wrong name, user, secret or parameter.

    At the start this is a wrong setting; later it may be a change in progress.
    """


def discard_misused(context: ExceptionContext) -> None:
    """Treat a connection whose driver has lost its place in the protocol as a lost one.

    SQLAlchemy discards closed connections only; this one would go back to the pool, and fail
    every later statement.
    """
    cause = context.original_exception.__cause__
    misused = isinstance(cause, asyncpg.InterfaceError | asyncpg.InternalClientError)
    if misused and not isinstance(cause, ValueError):  # which an argument causes
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


class CannotDowngrade(Exception):
    """The revision that is asked for would lose what is under way; the message is a sentence."""


class translated:  # noqa: N801 - a context manager used like a function
    """Turn the drivers' errors for an outage into `DatabaseUnavailable`, which names the place."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, DatabaseUnavailable) or not _is_outage(error):
            return
        refused = isinstance(first_cause(error), _REFUSALS)
        kind = DatabaseRefused if refused else DatabaseUnavailable
        raise kind(f"{self._place}: {reason_of(error)}") from error


def _is_outage(error: BaseException) -> bool:
    """Whether the error means an outage rather than a faulty statement."""
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, InvalidRequestError):  # the connection died between two statements
        return "invalid transaction" in str(error) or "invalidated" in str(error)
    cause: BaseException | None = error
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        cause = error.orig
    for _ in range(_LONGEST_CHAIN):
        if isinstance(cause, (*_OUTAGES, *_REFUSALS)):
            return True
        if isinstance(cause, sqlite3.OperationalError):
            return any(words in str(cause) for words in _SQLITE_OUTAGES)
        cause = cause and cause.__cause__
    return False


def reason_of(error: BaseException) -> str:
    """What the driver, the server or the system says, in one line and without any setting."""
    if isinstance(error, PoolTimeout):
        return "no connection was free in time"
    cause = first_cause(error)
    said = (str(cause).splitlines() or [""])[0]
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError):
        if numbers := dict.fromkeys(_ERRNO.findall(said)):  # of each address of the host
            said = " or ".join(os.strerror(int(number)).lower() for number in numbers)
        elif isinstance(cause, TimeoutError):
            said = "no answer in time"
        elif cause.errno and cause.errno > 0:  # asyncio has words of its own
            said = os.strerror(cause.errno)
        else:  # of the resolver
            said = cause.strerror or said
    return f"{said[:1].lower()}{said[1:]}" or type(cause).__name__


def first_cause(error: BaseException) -> BaseException:
    """The error of the driver or the server, before SQLAlchemy wrapped it."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return error if cause is None else cause.__cause__ or cause


def is_wrong_password(error: DatabaseRefused) -> bool:
    """Whether the database refuses the password, rather than anything else."""
    cause = error.__cause__
    return cause is not None and isinstance(first_cause(cause), asyncpg.InvalidPasswordError)
