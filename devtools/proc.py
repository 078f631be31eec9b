"""Processor time and memory of processes, from `/proc`; None or zero where that is missing."""

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_RESET_PEAK: Final = "5"


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that these processes, all their threads included, have used."""
    return sum(map(_cpu_seconds, pids))


def _cpu_seconds(pid: int) -> float:
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except FileNotFoundError:
        return 0.0


def parse_stat(text: str) -> float:
    """Seconds of processor time from the text of `/proc/<pid>/stat` (see proc(5))."""
    fields = text.rpartition(")")[2].split()  # the name before may hold blanks and parentheses
    return sum(map(int, fields[11:13])) / _TICKS


def reset_peak(pids: Sequence[int]) -> None:
    """Reset the peaks of memory, where that is permitted."""
    for pid in pids:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)


def resident_mib(pid: int) -> float:
    """Resident memory of the process at this moment, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def peak_mib(pids: Sequence[int]) -> float | None:
    """The largest resident memory of one of these processes, in MiB."""
    found = [peak for pid in pids if (peak := _peak_mib(pid)) is not None]
    return max(found, default=None)


def _peak_mib(pid: int) -> float | None:
    try:
        return parse_peak(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None


def parse_peak(text: str) -> float | None:
    """`VmHWM` in MiB from the text of `/proc/<pid>/status`."""
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None
