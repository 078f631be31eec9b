"""What errors of the two databases mean: an outage, or a refusal of our credentials."""

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


class translated:  # noqa: N801 - a context manager used like a function
    """Turn the drivers' errors for an outage into `DatabaseUnavailable`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and _is_outage(error):
            cause = first_cause(error)
            if isinstance(cause, _REFUSALS):
                raise DatabaseRefused(cause) from error
            raise DatabaseUnavailable(_reason(error)) from error


def _is_outage(error: BaseException) -> bool:
    """Whether the error means an outage rather than a faulty statement."""
    if isinstance(error, PoolTimeout | DatabaseUnavailable):
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


def _reason(error: BaseException) -> str:
    """The driver's name for the error, and the server's message."""
    cause = first_cause(error)
    said = str(cause).splitlines()[:1] if isinstance(cause, asyncpg.PostgresError) else []
    return ": ".join([type(cause).__name__, *said])


def first_cause(error: BaseException) -> BaseException:
    """The error of the driver or the server, before SQLAlchemy wrapped it."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return error if cause is None else cause.__cause__ or cause
