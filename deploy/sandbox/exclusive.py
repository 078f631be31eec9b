"""One sandbox per folder, and no leftover processes of one that crashed."""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from deploy.sandbox.layout import MARKER, Folder, SandboxError

_PATIENCE = 20.0


@contextlib.contextmanager
def only_one(folder: Folder) -> Iterator[None]:
    """Hold the folder's lock. Raises `SandboxError` if another sandbox holds it."""
    with (folder.root / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise SandboxError(
                f"The sandbox is already running (process {pid}): use that one, or end it with "
                f"Ctrl-C in its terminal or `kill {pid}`."
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def holder(folder: Folder) -> int | None:
    """The process id of the sandbox that starts or runs in the folder."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder.root / "lock").read_text())
        os.kill(pid, 0)  # a killed sandbox leaves its id behind
        return pid
    return None


class Children:
    """The process ids of the sandbox's children, in a file that survives a crash."""

    def __init__(self, folder: Folder) -> None:
        self._file = folder.root / "pids"
        self._folder = folder

    def remember(self, pid: int) -> None:
        with self._file.open("a") as file:
            file.write(f"{pid}\n")

    def forget_all(self) -> None:
        self._file.unlink(missing_ok=True)

    def end_leftovers(self) -> int:
        """End the leftover processes of a crashed sandbox; returns their number."""
        if not self._file.exists():
            return 0
        pids = [int(line) for line in self._file.read_text().split() if line.isdecimal()]
        left = [pid for pid in pids if self._is_ours(pid)]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            end = time.monotonic() + _PATIENCE
            while any(map(self._is_ours, left)) and time.monotonic() < end:
                time.sleep(0.1)
        self.forget_all()
        return len(left)

    def _is_ours(self, pid: int) -> bool:
        """Whether the process has this folder's marker, which no process with a reused id has."""
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False
        return f"{MARKER}={self._folder.root}".encode() in variables
