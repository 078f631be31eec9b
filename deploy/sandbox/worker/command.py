"""An application's command in a process group of its own, as in a container."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from deploy.sandbox.lifeline import tied_to_parent

REPOSITORY: Final = Path(__file__).resolve().parents[3]
_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


def environment(job: Mapping[str, str], data_dir: Path) -> dict[str, str]:
    """The command's variables: the job's, overridden by the worker's.

    `DATA_DIR` is the mount, `PYTHON` an interpreter that can import the sandbox's applications.
    """
    return {
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        "PYTHONUNBUFFERED": "1",
        **job,
        "DATA_DIR": str(data_dir),
        "PYTHON": sys.executable,
        "PYTHONPATH": str(REPOSITORY),
    }


class Command:
    """A running command; what it starts is in its process group and ends with it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(
        cls, arguments: Sequence[str], *, variables: Mapping[str, str], folder: Path, log: Path
    ) -> "Command":
        """Run `/bin/sh -c` with the arguments joined by blanks; both outputs go to `log`."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *tied_to_parent(["/bin/sh", "-c", " ".join(arguments)], signal.SIGKILL),
                cwd=folder,
                env=dict(variables),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process)

    async def wait(self) -> int:
        """Wait for the end and kill what it left running; returns the exit status."""
        status = await self._process.wait()
        self._kill_group()
        return status

    async def kill(self) -> None:
        """Kill the process group."""
        self._kill_group()
        await self._process.wait()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
