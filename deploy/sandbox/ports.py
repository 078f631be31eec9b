"""Free ports, and waiting for servers."""

import asyncio
import fcntl
import os
import random
import socket
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import aiohttp

LOOPBACK = "127.0.0.1"

_SETTLED = range(10_000, 32_000)
_given: set[int] = set()


class NotReadyError(Exception):
    """Something was not ready in time; the message is a sentence."""


def free_port(*, in_a_row: int = 1) -> int:
    """A port without a listener that no running process has obtained from this function.

    It is outside the range of outgoing connections, one of which could take it first. It is the
    first of `in_a_row` such ports.
    """
    while True:
        first = random.choice(_SETTLED)
        ports = range(first, first + in_a_row)
        if _given.isdisjoint(ports) and all(_reserve(port) and is_free(port) for port in ports):
            _given.update(ports)
            return first


def _reserve(port: int) -> bool:
    """Reserve a port until this process ends; returns False if another process has it."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _reservations() -> int:
    """A file with a lockable byte per port."""
    file = Path(tempfile.gettempdir()) / f"opencloud-ports-{os.getuid()}"
    return os.open(file, os.O_RDWR | os.O_CREAT, 0o600)


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there now, connections in TIME_WAIT aside."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def wait_until_listening(
    port: int, *, seconds: float = 30.0, alive: Callable[[], bool] = lambda: True
) -> None:
    """Return once a server accepts connections; blocks. Raises `NotReadyError` after `seconds`.

    Also raises it as soon as `alive` returns False: the server's process has ended.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and alive():
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.05)
    raise NotReadyError(f"nothing listens at port {port}")


async def wait_until_answering(
    session: aiohttp.ClientSession,
    url: str,
    *,
    seconds: float = 30.0,
    alive: Callable[[], bool] = lambda: True,
) -> None:
    """Return once `url` responds below 400. Raises `NotReadyError` after `seconds`.

    Also raises it as soon as `alive` returns False: the server's process has ended.
    """
    end = time.monotonic() + seconds
    answer = "no response"
    while time.monotonic() < end:
        if not alive():
            raise NotReadyError(f"its process ended before {url} responded")
        try:
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=3)) as response:
                if response.status < 400:
                    return
                answer = f"HTTP {response.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = type(error).__name__
        await asyncio.sleep(0.1)
    raise NotReadyError(f"{url} was not ready within {seconds:.0f} s ({answer})")
