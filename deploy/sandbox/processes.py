"""The sandbox's child processes: start, readiness, stop, and the end of their logs."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from deploy.sandbox.lifeline import tied_to_parent
from deploy.sandbox.ports import NotReadyError, wait_until_answering

_TAIL_BYTES = 16_384


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to run; `ready` is a URL that responds once it works, `restarts` if it crashes."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    log: Path
    ready: str | None = None
    restarts: bool = True


class Child:
    """A running program."""

    def __init__(self, program: Program, process: asyncio.subprocess.Process) -> None:
        self.program = program
        self.started = time.monotonic()
        self._process = process

    @classmethod
    async def start(cls, program: Program) -> "Child":
        """Run the program in a session of its own, so that Ctrl-C does not reach it."""
        program.log.parent.mkdir(parents=True, exist_ok=True)
        with program.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *tied_to_parent(program.command, signal.SIGTERM),
                env=dict(program.environment),
                cwd=program.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return cls(program, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    @property
    def lifetime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    async def wait(self) -> int:
        """The exit status, negative for a signal."""
        return await self._process.wait()

    async def until_ready(self, session: aiohttp.ClientSession, seconds: float = 60.0) -> None:
        """Raises `NotReadyError`."""
        if self.program.ready is not None:
            await wait_until_answering(
                session, self.program.ready, seconds=seconds, alive=lambda: self.is_alive
            )
        elif not self.is_alive:
            raise NotReadyError("its process ended immediately")

    async def stop(self, patience: float = 20.0) -> bool:
        """Send SIGTERM, and SIGKILL after `patience` seconds; returns whether SIGTERM sufficed."""
        if not self.is_alive:
            return True
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), patience)
        except TimeoutError:
            self.kill()
            await self._process.wait()
            return False
        return True

    def kill(self) -> None:
        """Kill the process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def describe_end(status: int) -> str:
    """`exit status 1`, `signal SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def last_lines(log: Path, count: int = 12) -> list[str]:
    """The end of a log, each line short enough for a terminal."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line[:300] for line in text.splitlines() if line.strip()][-count:]
