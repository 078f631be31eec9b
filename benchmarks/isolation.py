"""Functions in processes of their own, so that their processor time is not the caller's."""

import inspect
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import uvloop

from benchmarks.results import Sample
from devtools.services import REPOSITORY

P = ParamSpec("P")
T = TypeVar("T")


class ToolFailed(Exception):
    """A load generator or a baseline failed; the message holds its traceback."""


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of a module in a fresh interpreter. Raises `ToolFailed`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.isolation"],
        input=pickle.dumps((function, args, kwargs)),
        env={name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise ToolFailed(f"{function.__name__}: {done.stderr.decode(errors='replace').strip()}")
    return cast("T", pickle.loads(done.stdout))


def measured(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Sample:
    """Run `work` (a coroutine function on uvloop), which returns the number of its items."""
    began, used = time.monotonic(), time.process_time()
    count = work(*args, **kwargs)
    if inspect.iscoroutine(count):
        count = uvloop.run(count)
    assert isinstance(count, int)
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - used
    return Sample(count=count, seconds=seconds, cpu_seconds=cpu_seconds)


def measured_apart(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Sample:
    """The same in a process of its own. Raises `ToolFailed`."""
    sample: Sample = in_own_process(cast("Any", measured), work, *args, **kwargs)
    return sample


if __name__ == "__main__":
    _function, _args, _kwargs = pickle.load(sys.stdin.buffer)
    sys.stdout.buffer.write(pickle.dumps(_function(*_args, **_kwargs)))
