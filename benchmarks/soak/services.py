"""Processes that are killed and started again."""

import asyncio
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.processes import DidNotStart, environment
from deploy.sandbox.lifeline import tied_to_parent

_PATIENCE: Final = 60.0
_STOPS_WITHIN: Final = 10.0


class Service:
    """`python -m <command>`, always on the same ports; its output is kept over restarts."""

    def __init__(
        self, name: str, *command: str, settings: Mapping[str, str], ready: str, folder: Path
    ) -> None:
        """`ready` is the URL that answers below 400 once it is ready."""
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._settings = settings
        self.ready = ready
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Unless it runs. From the main thread only: the process ends with the thread."""
        if self._process is not None and self._process.poll() is None:
            return
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                tied_to_parent([sys.executable, "-m", *self._command], signal.SIGKILL),
                env=environment(self._settings),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    async def wait_until_ready(self) -> None:
        """Raises `DidNotStart`."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._process is not None:
            if self._process.poll() is not None:
                break
            if await asyncio.to_thread(self._is_ready):
                return
            await asyncio.sleep(0.05)
        tail = self.log.read_text(errors="replace")[-2_000:]
        raise DidNotStart(f"{self.name} is not ready; its log ends with:\n{tail}")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.ready, timeout=3):
                return True
        except (OSError, urllib.error.HTTPError):
            return False

    def kill(self) -> None:
        """As `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def suspend(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
