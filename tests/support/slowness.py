"""Bounds in seconds that hold on slow and busy machines.

A bound is stated for one machine, and multiplied by how much slower this one is. From what is
measured is deducted how long threads were ready to run while the machine was running others.
"""

import contextlib
import threading
import time
from pathlib import Path
from typing import Final, Self

from devtools.services import Process

WORK: Final = 0.008
"""Seconds of processor time that `_work` takes on the machine for which bounds are stated."""


def _work() -> float:
    """Processor time of some work, in seconds."""
    began = time.thread_time()
    sum(number % 7 for number in range(300_000))
    return time.thread_time() - began


def slowness() -> float:
    """How much slower than the stated one this machine is at the moment; 1 at least."""
    return max(1.0, sorted(_work() for _ in range(5))[2] / WORK)


def kept_waiting(*threads: Path) -> float:
    """Seconds for which threads were ready to run, but not running (proc(5), `schedstat`)."""
    waited = 0
    for thread in threads:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            waited += int((thread / "schedstat").read_text().split()[1])
    return waited / 1e9


class Elapsed:
    """`with Elapsed(process) as elapsed:`; then `elapsed.seconds` without those for which this
    thread, or the process's event loop, waited for a processor."""

    def __init__(self, process: Process) -> None:
        self._threads = (
            Path(f"/proc/self/task/{threading.get_native_id()}"),
            Path(f"/proc/{process.pid}/task/{process.pid}"),
        )
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._began = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = self._now() - self._began

    def _now(self) -> float:
        return time.monotonic() - kept_waiting(*self._threads)
