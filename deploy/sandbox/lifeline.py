"""Child processes that do not outlive their parent, even if it is killed."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

# an intermediate program instead of `preexec_fn`, which is unsafe with threads
_TIE: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]))  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[2]):
    sys.exit("the parent died first")
os.execvp(sys.argv[3], sys.argv[3:])
"""


def tied_to_parent(command: Sequence[str], number: signal.Signals) -> list[str]:
    """The command, changed so that the kernel signals it when the calling thread ends.

    Only Linux can; elsewhere the command is unchanged, and the parent has to end its children.
    """
    if sys.platform != "linux":
        return list(command)
    tie = [sys.executable, "-I", "-S", "-c", _TIE, str(int(number)), str(os.getpid())]
    return [*tie, *command]
