"""What a process tells that measures itself."""

import resource
import sys
import time
from collections.abc import Callable

import orjson


def own_cpu_seconds() -> float:
    """Processor time that this process has used."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds and processor seconds that the work takes."""
    began, used = time.monotonic(), own_cpu_seconds()
    work()
    return time.monotonic() - began, own_cpu_seconds() - used


def print_sample(work: Callable[[], int]) -> None:
    """Do the work, which returns how much it did, and print it as a `Sample` in JSON."""
    began, used = time.monotonic(), own_cpu_seconds()
    count = work()
    sample = {
        "count": count,
        "seconds": time.monotonic() - began,
        "cpu_seconds": own_cpu_seconds() - used,
    }
    sys.stdout.buffer.write(orjson.dumps(sample))
