"""How a service's process starts and ends.

The port is taken before anything else is done, so that a second start on it ends with one
sentence instead of doing work first. On SIGTERM readiness fails, then the service drains while its
port still answers, and only then is everything closed. A second signal closes at once.
"""

import asyncio
import contextlib
import gc
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import uvloop
from aiohttp import web

from common.config.environment import exit_with
from common.database.errors import DatabaseRefused, DatabaseUnavailable
from common.database.schema import SchemaOutdated
from common.telemetry.health import Health
from common.telemetry.logs import get_logger
from common.telemetry.loop_lag import measure_loop_lag

LATECOMERS: Final = 2.0
"""Seconds for requests that are still being answered when a process closes its port."""

_COLLECT_AFTER: Final = 50_000
COLLECT_IN_DAEMONS_AFTER: Final = 5_000
"""A daemon's ticks leave a few cycles of SQLAlchemy's each: it would take hours, and megabytes, to
come to the number of a gateway, which would answer fewer requests if it looked as often."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = get_logger()


class CannotStart(Exception):
    """The service cannot start; the message is a sentence for the operator, without a full stop."""


def run(
    service: str,
    app: web.Application,
    *,
    host: str,
    port: int,
    health: Health,
    drain: Callable[[], Awaitable[None]] | None = None,
    collect_after: int = _COLLECT_AFTER,
) -> None:
    """Serve `app` until a signal comes; `drain` runs first then, with the port still open.

    Whoever comes during its last moments gets a few seconds. What keeps the service from starting
    becomes one sentence on standard error and exit status 1. The collector looks for cycles when
    there are `collect_after` objects more.
    """
    try:
        listening = _bind(host, port)
    except OSError as error:
        exit_with(service, f"cannot listen on {host}:{port} ({error.strerror or error}).")
    _allow_many_files()
    app.cleanup_ctx.append(measure_loop_lag)
    _close_after_a_failed_start(app)
    app.on_startup.append(_on_signal(health, drain))
    app.on_startup.append(_spare_the_collector(collect_after))
    try:
        web.run_app(
            app,
            sock=listening,
            loop=uvloop.new_event_loop(),
            access_log=None,
            print=None,
            shutdown_timeout=LATECOMERS,
        )
    except DatabaseRefused as error:
        exit_with(service, f"DATABASE_URL or DATABASE_SECRET is wrong ({error}).")
    except DatabaseUnavailable as error:
        exit_with(service, f"the database did not answer ({error}).")
    except (CannotStart, SchemaOutdated) as error:
        exit_with(service, f"{error}.")
    except OSError as error:
        exit_with(service, f"cannot start: {error.strerror or error}.")
    log.info("process.stopped")


def _close_after_a_failed_start(app: web.Application) -> None:
    """Let the contexts that are open close when a later one cannot be opened: aiohttp leaves them
    to the loop, which closes them in no order, with tracebacks."""
    contexts = list(app.cleanup_ctx)

    async def all_in_order(app: web.Application) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for context in contexts:
                opened: Any = contextlib.asynccontextmanager(context)(app)  # type: ignore[arg-type]
                await stack.enter_async_context(opened)
            yield

    app.cleanup_ctx.clear()
    app.cleanup_ctx.append(all_in_order)


def _spare_the_collector(after: int) -> Callable[[web.Application], Awaitable[None]]:
    async def spare(_: web.Application) -> None:
        """What was made at start stays: the collector need not look at it again and again."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(after)

    return spare


def _allow_many_files() -> None:
    """A connection is an open file: take what the system allows, not the shells' usual 1 024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # where the kernel allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: nobody connects before the service has started."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _on_signal(
    health: Health, drain: Callable[[], Awaitable[None]] | None
) -> Callable[[web.Application], Awaitable[None]]:
    tasks: list[asyncio.Task[None]] = []

    async def drain_and_leave() -> None:
        try:
            if drain is not None:
                await drain()
        except Exception:
            log.exception("process.drain_failed")
        asyncio.get_running_loop().call_soon(_leave)

    def begin() -> None:
        if health.draining:
            _leave()
        health.draining = True
        log.info("process.draining")
        tasks.append(asyncio.get_running_loop().create_task(drain_and_leave()))

    async def install(_: web.Application) -> None:
        # replaces the handlers of `web.run_app`, which close the port before anything else
        for number in _SIGNALS:
            with contextlib.suppress(NotImplementedError):
                asyncio.get_running_loop().add_signal_handler(number, begin)

    return install


def _leave() -> None:
    raise web.GracefulExit
