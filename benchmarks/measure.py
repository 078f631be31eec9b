"""Loads against the service and its baseline in turns, so that noise affects both."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from benchmarks import load_generator, transfer
from benchmarks.environment import Environment
from benchmarks.isolation import ToolFailed, in_own_process
from benchmarks.load_generator import Load
from benchmarks.messages import Endpoint
from benchmarks.results import Baseline, Result, Sample, Transfer, median_transfer
from benchmarks.targets import Target
from devtools import proc
from devtools.services import Process

T = TypeVar("T")

_WARM_UP: Final = 0.3
_TIMEOUT: Final = 60.0
_NO_TARGET: Final = Target()


@dataclass(frozen=True)
class Workload:
    """Requests to repeat, and the size in bytes of the response to the first one."""

    endpoint: Endpoint
    requests: list[bytes]
    response: int
    status: int = 200


def load_of(env: Environment, endpoint: Endpoint, requests: list[bytes], **changes: Any) -> Load:
    """A load with the connections and seconds of the options."""
    options = {"connections": env.options.connections, "seconds": env.options.seconds}
    return Load(endpoint, requests, **(options | changes))


def run_load(load: Load, process: Process | None = None) -> Sample:
    """Generate a load in a process of its own; the sample has the processor time of `process`.

    Raises `ToolFailed` after an unexpected response.
    """
    pids = [process.pid] if process else []
    before = proc.cpu_seconds(pids)
    sample = in_own_process(load_generator.drive_apart, load)
    sample.cpu_seconds = proc.cpu_seconds(pids) - before
    return sample


def measure_requests(
    env: Environment, workload: Workload, group: str, name: str,
    target: Target = _NO_TARGET, baselines: Sequence[Baseline] = (),
) -> Result:  # fmt: skip
    """Compare the gateway with a bare handler that sends as many bytes."""
    seconds = env.options.seconds / env.options.slices
    endpoint, requests, status = workload.endpoint, workload.requests, workload.status
    ours = load_of(env, endpoint, requests, seconds=seconds, status=status)
    to_bare = [_to_bare(requests[0], workload.response)]
    bare = load_of(env, env.bare(endpoint), to_bare, seconds=seconds)
    for warm_up in (ours, bare):
        run_load(replace(warm_up, seconds=min(_WARM_UP, seconds)))
    proc.reset_peak([env.gateway.pid])
    measured, floor = Sample(), Sample()
    for _ in range(env.options.slices):
        measured += run_load(ours, env.gateway)
        floor += run_load(bare, env.handlers)
    handler = Baseline("bare handler", floor.per_second(), must=target.must, aim=target.aim)
    peak = proc.peak_mib([env.gateway.pid])
    return Result(group, name, measured.per_second(), (handler, *baselines), peak)


def _to_bare(request: bytes, size: int) -> bytes:
    """The same request, headers and body, for the bare handler."""
    method, _, rest = request.split(b" ", 2)
    return b" ".join((method, f"/bytes/{size}".encode(), rest))


def run_transfer(request: transfer.Request, process: Process | None = None) -> Transfer:
    """Move a large body from a process of its own; with the processor time of `process`."""
    if process is None:
        return in_own_process(transfer.perform, request)
    before = proc.cpu_seconds([process.pid])
    moved = in_own_process(transfer.perform, request)
    return replace(moved, cpu_seconds=proc.cpu_seconds([process.pid]) - before)


def in_turns(
    env: Environment, *steps: Callable[[], Transfer]
) -> tuple[list[Transfer], float | None]:
    """Repeat the steps in turns; returns the medians and the gateway's peak memory in MiB."""
    pids = [env.gateway.pid]
    proc.reset_peak(pids)
    rounds = [[step() for step in steps] for _ in range(env.options.repeats)]
    return [median_transfer(column) for column in zip(*rounds, strict=True)], proc.peak_mib(pids)


def wait_until(check: Callable[[], T], failure: str) -> T:
    """The first true value of `check`. Raises `ToolFailed` after `_TIMEOUT` seconds."""
    give_up = time.monotonic() + _TIMEOUT
    while not (result := check()):
        if time.monotonic() > give_up:
            raise ToolFailed(f"{failure} within {_TIMEOUT:g} s")
        time.sleep(0.02)
    return result
