"""Programs that end, and whose folders go, with the process that started them.

`PR_SET_PDEATHSIG` (deploy/sandbox/lifeline.py) follows the thread that forked and is cleared when
a program changes its user. Where that matters, a watcher stands between the two: it reads a pipe
whose other end only the starting process holds, so it notices that process's death, `kill -9`
included. It needs no privileges beyond those of its parent and works on any Unix.
"""

import contextlib
import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from typing import Final

_WATCHER: Final = """
import os, shutil, subprocess, sys, threading

number, user, group, folder, *command = sys.argv[1:]
program = subprocess.Popen(
    command,
    stdin=subprocess.DEVNULL,
    cwd="/",
    **({"user": user, "group": int(group), "extra_groups": ()} if user else {}),
)
released = b""

def watch():
    global released
    released = sys.stdin.buffer.read()
    program.send_signal(int(number))

thread = threading.Thread(target=watch, daemon=True)
thread.start()
status = program.wait()
if not thread.is_alive() and not released:
    shutil.rmtree(folder, ignore_errors=True)
os._exit(status if status >= 0 else 128 - status)
"""


class Watched:
    """A running program that outlives neither `stop` nor this process.

    It runs as `user`, where given. `folder` is deleted if this process dies before it stops the
    program; otherwise the folder is the caller's. `end` is the signal that ends the program.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        end: Signals,
        user: str | None = None,
    ) -> None:
        group = str(pwd.getpwnam(user).pw_gid) if user else ""
        watcher = [sys.executable, "-I", "-S", "-c", _WATCHER]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*watcher, str(int(end)), user or "", group, str(folder), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # what kills our process group must not kill the watcher
            )

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> int:
        """Wait until the program ends of itself; returns its exit status."""
        with self._process:
            return self._process.wait()

    def stop(self) -> None:
        """Send the program its signal and wait until it has ended."""
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.communicate(b"released")


def unprivileged_user() -> str | None:
    """The user for programs that refuse to run as root; None if this process is not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
