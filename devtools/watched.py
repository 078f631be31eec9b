"""Programs and folders that go with the process that started them, however it ends.

`PR_SET_PDEATHSIG` (deploy/sandbox/lifeline.py) follows the thread that forked and is cleared when
a program changes its user. Where that matters, a watcher stands between the two: it reads a pipe
whose other end only the starting process holds, so it notices that process's death, `kill -9`
included. It needs no privileges beyond those of its parent and works on any Unix. On Linux a
program ends with its watcher, too, should that be killed.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from signal import Signals
from typing import IO, Final

_WATCHER: Final = """
import ctypes, os, subprocess, sys, threading

number, user, group, *command = sys.argv[1:]
watcher, libc = os.getpid(), ctypes.CDLL(None) if sys.platform == "linux" else None

def tie():  # after the change of the user, which clears it; this process has no thread yet
    libc.prctl(1, int(number))  # PR_SET_PDEATHSIG
    if os.getppid() != watcher:
        os._exit(1)

program = subprocess.Popen(
    command,
    stdin=subprocess.DEVNULL,
    cwd="/",
    preexec_fn=tie if libc else None,
    **({"user": user, "group": int(group), "extra_groups": ()} if user else {}),
)

def watch():
    sys.stdin.buffer.read()
    program.send_signal(int(number))

threading.Thread(target=watch, daemon=True).start()
status = program.wait()
os._exit(status if status >= 0 else 128 - status)
"""

# it makes the folder itself, so that there is none without it; what still writes into it ends
# at the same time as the reading
_KEEPER: Final = """
import contextlib, os, shutil, sys, tempfile, time

folder = tempfile.mkdtemp(prefix=sys.argv[1], dir=sys.argv[2])
with contextlib.suppress(BrokenPipeError):
    print(folder, flush=True)
sys.stdin.buffer.read()
for _ in range(200):
    shutil.rmtree(folder, ignore_errors=True)
    if not os.path.exists(folder):
        break
    time.sleep(0.05)
os._exit(0)
"""


class Watched:
    """A running program that outlives neither `stop` nor this process.

    It runs as `user`, where given. `end` is the signal that ends the program.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, end: Signals, user: str | None = None
    ) -> None:
        group = str(pwd.getpwnam(user).pw_gid) if user else ""
        with log.open("ab") as output:
            self._process = _beside(_WATCHER, str(int(end)), user or "", group, *command, to=output)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> int:
        """Wait until the program ends of itself; returns its exit status."""
        with self._process:
            return self._process.wait()

    def stop(self) -> None:
        """Send the program its signal and wait until it has ended."""
        self._process.communicate()


@contextlib.contextmanager
def temporary_folder(prefix: str, place: Path | None = None) -> Iterator[Path]:
    """A folder of a fresh name, in `place` or where the system has such, until the exit."""
    arguments = (prefix, str(place or tempfile.gettempdir()))
    keeper = _beside(_KEEPER, *arguments, to=subprocess.PIPE)
    assert keeper.stdout is not None
    name = keeper.stdout.readline().decode().rstrip("\n")
    if not name:
        keeper.communicate()
        raise OSError(f"no folder could be made in {arguments[1]}")
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        keeper.communicate()


def _beside(
    program: str, *arguments: str, to: IO[bytes] | int | None = None
) -> subprocess.Popen[bytes]:
    """A Python program that reads a pipe from this process."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=to,
        stderr=None if to == subprocess.PIPE else to,
        start_new_session=True,  # what kills our process group must not kill it
    )


def unprivileged_user() -> str | None:
    """The user for programs that refuse to run as root; None if this process is not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
