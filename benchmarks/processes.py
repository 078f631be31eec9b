"""The processes that take part: started with an explicit environment, ended by their number."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.sandbox.lifeline import tied_to_parent

REPOSITORY: Final = Path(__file__).resolve().parent.parent

_PATIENCE: Final = 30.0
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")


class DidNotStart(Exception):
    """A process ended, or did not answer in time; the message shows the end of its log."""


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """What a process needs of ours, and these settings; nothing else."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "PYTHONPATH": str(REPOSITORY), **settings}


class Child:
    """A running process; its output goes to `log`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until(self, url: str) -> None:
        """Return once `url` answers below 400. Raises `DidNotStart`."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=3):
                return
            time.sleep(0.05)
        tail = self.log.read_text(errors="replace")[-2_000:]
        raise DidNotStart(f"{url} does not answer; {self.log.name} ends with:\n{tail}")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise


@contextmanager
def running(*command: str, settings: Mapping[str, str], folder: Path, name: str) -> Iterator[Child]:
    """Run `python -m <command>` in `folder`, in a session of its own: a Ctrl-C reaches only us.

    The kernel ends it should this process be killed.
    """
    log = folder / f"{name}.log"
    arguments = [sys.executable, "-m", *command]
    with log.open("ab") as output:
        process = subprocess.Popen(
            tied_to_parent(arguments, signal.SIGTERM),
            env=environment(settings),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    child = Child(process, log)
    try:
        yield child
    finally:
        child.stop()


def call(*command: str, given: bytes = b"") -> bytes:
    """What `python -m <command>` prints; it runs to its end. Raises `ToolFailed`."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        input=given,
        env=environment({}),
        capture_output=True,
        cwd=REPOSITORY,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise ToolFailed(f"{' '.join(command)} failed:\n{reason}")
    return done.stdout


class ToolFailed(Exception):
    """A load generator or a floor failed; the message holds what it printed."""
