"""The services as real processes."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self
from uuid import uuid4

import aiohttp

from deploy.sandbox.lifeline import tied_to_parent
from deploy.sandbox.ports import free_port
from devtools.proc import resident_mib

_PASSED_ON: Final = ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_CONFIG")

REPOSITORY = Path(__file__).resolve().parent.parent


class DidNotStart(Exception):
    """A process ended before it was ready, or was not in time; the message has its log's end."""


class Process:
    """`python -m <service>` with an environment of its own; killed when the test ends."""

    def __init__(
        self,
        service: str,
        settings: Mapping[str, Any],
        folder: Path,
        *,
        admin_port: int | None = None,
        arguments: Sequence[str] = (),
        prefix: Sequence[str] = (),
        group: int | None = None,
        ready: str = "/readyz",
    ) -> None:
        """`prefix` is a command that runs the rest of its line in its own place; `group` the id of
        the process group to join, 0 for one of its own; `ready` the path on the admin port that
        answers 200 once the process is ready."""
        self.admin_port = admin_port or free_port()
        self._ready = ready
        self._log = folder / f"{service}-{uuid4().hex}.log"
        environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
        environment |= {name: str(value) for name, value in settings.items()}
        path = [environment.get("PYTHONPATH", ""), str(REPOSITORY)]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        environment["ADMIN_PORT"] = str(self.admin_port)
        command = [sys.executable, "-m", service, *arguments]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*prefix, *tied_to_parent(command, signal.SIGKILL)],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=group,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def memory(self) -> float:
        """Resident memory in MiB."""
        return resident_mib(self.pid)

    @property
    def files(self) -> int:
        """Open files, connections included."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    async def wait_until_ready(self, *, within: float = 90.0) -> Self:
        """Returns the process. Raises `DidNotStart` if it ends first, or after so many seconds."""
        try:
            async with asyncio.timeout(within):
                while await self.probe(self._ready) != 200:
                    if not self.is_running:
                        raise DidNotStart(self._last_words)
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise DidNotStart(
                f"{self._log.name} is not ready after {within:g} s\n{self._last_words}"
            ) from error
        return self

    @property
    def _last_words(self) -> str:
        return self.output[-2_000:]

    async def probe(self, path: str) -> int | None:
        """The status that the admin port answers; None if there is no answer."""
        try:
            async with aiohttp.ClientSession() as session, session.get(self._url(path)) as answer:
                return answer.status
        except aiohttp.ClientError:
            return None

    async def page(self, path: str) -> str:
        """What the admin port answers."""
        async with aiohttp.ClientSession() as session, session.get(self._url(path)) as answer:
            return await answer.text()

    async def metric(self, name: str) -> float:
        """A metric's value; `name` is as the page has it, with labels."""
        page = await self.page("/metrics")
        found = re.search(f"^{re.escape(name)} (.+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.admin_port}{path}"

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        self._process.kill()
        self._process.wait()

    def suspend(self) -> None:
        """Stop it; on return none of its threads runs any more."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to end, and kill it if it has not ended after half a minute."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    async def terminate(self) -> int:
        """Ask it to end; returns its exit status."""
        self._process.terminate()
        return await self.wait()

    async def wait(self) -> int:
        async with asyncio.timeout(90):
            return await asyncio.to_thread(self._process.wait)
