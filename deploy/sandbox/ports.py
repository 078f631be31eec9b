"""Ports of this machine, and waiting for what listens on them."""

import asyncio
import contextlib
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
    """Something did not answer in time; the message is a sentence."""


def free_port() -> int:
    """A port that nobody listens on, and that this function has given to nobody else: not in this
    process, nor in another one that still runs.

    None that the system gives to outgoing connections: one of those could take it before whoever
    asked does.
    """
    while True:
        port = random.choice(_SETTLED)
        if port in _given or not _reserve(port):
            continue
        _given.add(port)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


def _reserve(port: int) -> bool:
    """Reserve a port among processes, until this one ends; returns whether that was possible."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _reservations() -> int:
    """A file of which each byte stands for a port."""
    file = Path(tempfile.gettempdir()) / f"opencloud-ports-{os.getuid()}"
    return os.open(file, os.O_RDWR | os.O_CREAT, 0o600)


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there now (connections in TIME_WAIT do not count)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def wait_until_listening(port: int, *, seconds: float = 30.0) -> None:
    """Return once a server accepts connections at `port`. Raises `NotReadyError`; blocks."""
    end = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        if time.monotonic() > end:
            raise NotReadyError(f"nothing listened at port {port} within {seconds:.0f} s")
        time.sleep(0.05)


async def wait_until_answering(
    session: aiohttp.ClientSession,
    url: str,
    *,
    seconds: float = 30.0,
    alive: Callable[[], bool] = lambda: True,
) -> None:
    """Return once `url` answers below 400. Raises `NotReadyError` after `seconds`.

    `alive` tells whether it is still worth waiting, e.g. that the process has not ended.
    """
    end = time.monotonic() + seconds
    answer = "no answer"
    while time.monotonic() < end:
        if not alive():
            raise NotReadyError(f"its process ended before {url} answered")
        try:
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=3)) as response:
                if response.status < 400:
                    return
                answer = f"HTTP {response.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = type(error).__name__
        await asyncio.sleep(0.1)
    raise NotReadyError(f"{url} was not ready within {seconds:.0f} s ({answer})")
