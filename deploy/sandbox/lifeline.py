"""Child processes that do not outlive their parent, even one that was killed."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

# a process of its own instead of `preexec_fn`, which is not safe where threads run
_TIE: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]))  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[2]):
    sys.exit("the parent died first")
os.execvp(sys.argv[3], sys.argv[3:])
"""


def tied_to_parent(command: Sequence[str], number: signal.Signals) -> list[str]:
    """The command so that the kernel sends it the signal when this process dies.

    Unchanged where the kernel cannot (only Linux can): children then end by being told to.
    """
    if sys.platform != "linux":
        return list(command)
    tie = [sys.executable, "-I", "-S", "-c", _TIE, str(int(number)), str(os.getpid())]
    return [*tie, *command]
