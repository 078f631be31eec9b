"""How a service's process starts and ends.

1. The port is bound: a second start on it ends with one sentence before it does any work.
2. The application's startup runs, then the process listens; only then is the service started.
3. SIGTERM or SIGINT fails readiness, and the service drains while its port still answers.
4. The port closes, then the connections, then the application's cleanup contexts in reverse order.

A signal during the startup ends it; a second one ends the drain at once.
"""

import asyncio
import contextlib
import gc
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import uvloop
from aiohttp import web

from common.config.environment import exit_with
from common.database.errors import DatabaseRefused, DatabaseUnavailable
from common.database.schema import SchemaOutdated
from common.runtime.computation import USUAL_INTERVAL
from common.telemetry.health import Health
from common.telemetry.logs import get_logger
from common.telemetry.loop_lag import measure_loop_lag

_SHUTDOWN_TIMEOUT: Final = 2.0
"""Seconds that requests have which are still being answered when a server closes."""

_BACKLOG: Final = 128

_GC_THRESHOLD: Final = 50_000
"""New objects between two runs of the garbage collector: with fewer, a gateway would answer fewer
requests."""

log = get_logger()


MakeRunner = Callable[..., web.AppRunner]
"""Takes an application and the keyword arguments of `web.AppRunner`."""


class CannotStart(Exception):
    """The service cannot start; the message is a sentence for the operator, without a full stop."""


@dataclass(frozen=True)
class Address:
    """Where to listen; `setting` is the variable that holds the port."""

    setting: str
    host: str
    port: int

    def bind(self) -> socket.socket:
        """A bound socket that does not listen yet. Raises `CannotStart`."""
        with self._naming_the_setting():
            family, kind, protocol, _, address = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            bound = socket.socket(family, kind, protocol)
            try:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                bound.bind(address)
            except OSError:
                bound.close()
                raise
            return bound

    def listen(self, bound: socket.socket) -> None:
        """Let clients connect. Raises `CannotStart` if another process listens.

        Linux lets two sockets bind one port with SO_REUSEADDR while neither listens, and an event
        loop may lose the error of the second to listen.
        """
        with self._naming_the_setting():
            bound.listen(_BACKLOG)

    @contextlib.contextmanager
    def _naming_the_setting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise CannotStart(
                f"cannot listen on {self.host}"
                f" ({self.setting} {self.port}: {reason[:1].lower()}{reason[1:]})"
            ) from error


@contextlib.asynccontextmanager
async def serve(
    app: web.Application,
    address: Address,
    *,
    bound: socket.socket | None = None,
    make_runner: MakeRunner = web.AppRunner,
) -> AsyncIterator[int]:
    """Run the application's startup, then listen; gives the port, and ends with its cleanup.

    Raises `CannotStart` if the port is taken. Where the startup fails, the cleanup contexts that
    are open close in reverse order.
    """
    runner = make_runner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT)
    with bound or address.bind() as listening:
        try:
            await runner.setup()
            address.listen(listening)
            await web.SockSite(runner, listening, backlog=_BACKLOG).start()
            yield listening.getsockname()[1]
        finally:
            await runner.cleanup()


def run(
    service: str,
    app: web.Application,
    *,
    address: Address,
    health: Health,
    drain: Callable[[], Awaitable[None]],
    make_runner: MakeRunner = web.AppRunner,
    gc_threshold: int = _GC_THRESHOLD,
) -> None:
    """Serve `app` until a signal comes, then `drain` it with the port still open, and clean up.

    What keeps the service from starting becomes one sentence on standard error and exit status 1.
    """

    async def live(bound: socket.socket) -> None:
        stop = _stop_on_signals(health)
        async with serve(app, address, bound=bound, make_runner=make_runner), measure_loop_lag():
            gc.collect()
            gc.freeze()  # what the startup made stays
            gc.set_threshold(gc_threshold)
            health.started = True
            log.info("%s.started", service, host=address.host, port=address.port)
            await stop.wait()
            health.draining = True
            log.info("process.draining")
            await _finish(drain)

    _allow_many_files()
    sys.setswitchinterval(USUAL_INTERVAL)
    try:
        with address.bind() as bound, asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(live(bound))
    except asyncio.CancelledError:
        pass  # a signal during the startup or the cleanup
    except DatabaseRefused as error:
        exit_with(service, f"DATABASE_URL or DATABASE_SECRET is wrong ({error}).")
    except DatabaseUnavailable as error:
        exit_with(service, f"the database did not answer ({error}).")
    except (CannotStart, SchemaOutdated) as error:
        exit_with(service, f"{error}.")
    except OSError as error:
        exit_with(service, f"cannot start: {error.strerror or error}.")
    log.info("process.stopped")


def _stop_on_signals(health: Health) -> asyncio.Event:
    """The event that the first signal sets. Where nothing waits for it, during the startup and once
    it is set, a signal cancels the calling task instead."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    living = asyncio.current_task()
    assert living is not None

    def receive() -> None:
        if stop.is_set() or not health.started:
            living.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, receive)
    return stop


async def _finish(drain: Callable[[], Awaitable[None]]) -> None:
    """Wait for `drain`, up to the next signal."""
    try:
        await drain()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()  # the cleanup runs as usual
    except Exception:
        log.exception("process.drain_failed")


def _allow_many_files() -> None:
    """A connection is an open file: take what the system allows, not the shells' usual 1 024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # where the kernel allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
