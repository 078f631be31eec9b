"""Measured and floor in turns, so that what disturbs the machine disturbs both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from benchmarks import wrk
from benchmarks.figures import Figure, Floor, Result, Sample
from benchmarks.load import Outcome, Plan
from benchmarks.messages import Caller
from benchmarks.options import Options
from benchmarks.processes import call
from benchmarks.stage import Stage
from benchmarks.targets import Target
from devtools import proc

_WARM_UP: Final = 0.3


@dataclass(frozen=True, kw_only=True)
class Work:
    """Requests that one benchmark measures; `answer` is the size of the answers in bytes."""

    requests: list[bytes]
    answer: int
    status: int = 200


def plan(caller: Caller, requests: list[bytes], options: Options, **changes: Any) -> Plan:
    """The usual load: 32 connections, each as fast as it is answered."""
    usual = Plan(
        host=caller.host,
        port=caller.port,
        requests=requests,
        connections=options.connections,
        seconds=options.seconds,
    )
    return replace(usual, **changes)


def run_load(plan: Plan, pids: Sequence[int] = (), *, use_wrk: bool = False) -> Sample:
    """Send a load from a process of its own; `pids` are those whose processor time counts.

    Raises `benchmarks.processes.ToolFailed` when an answer is not the expected one.
    """
    before = proc.cpu_seconds(pids)
    if use_wrk and wrk.can_drive(plan):
        outcome = wrk.drive(plan)
    else:
        outcome = Outcome(**orjson.loads(call("benchmarks.load", given=plan.to_json())))
    return Sample(
        count=outcome.count,
        seconds=outcome.seconds,
        cpu_seconds=proc.cpu_seconds(pids) - before,
        latencies=outcome.latencies,
        kept=[(moment, text) for moment, text in outcome.kept],
    )


def compare(stage: Stage, work: Work, caller: Caller) -> tuple[Sample, Sample, float | None]:
    """The gateway and a bare handler that answers as many bytes; and the gateway's peak memory."""
    options = stage.options
    seconds = options.seconds / options.slices
    gateway = [stage.gateway.pid]
    ours = plan(caller, work.requests, options, seconds=seconds, status=work.status)
    bare = plan(
        stage.bare(caller),
        [_to_bare(request, work.answer) for request in work.requests[:1]],
        options,
        seconds=seconds,
    )
    for warm_up in (ours, bare):
        run_load(replace(warm_up, seconds=min(_WARM_UP, seconds)))
    proc.reset_peak(gateway)
    measured, floor = Sample(), Sample()
    for _ in range(options.slices):
        measured += run_load(ours, gateway, use_wrk=options.use_wrk)
        floor += run_load(bare, [stage.bare_pid], use_wrk=options.use_wrk)
    return measured, floor, proc.peak_mib(gateway)


def _to_bare(request: bytes, size: int) -> bytes:
    """The same request, headers and body, to the bare handler."""
    method, _, rest = request.split(b" ", 2)
    return b" ".join((method, f"/bytes/{size}".encode(), rest))


def request_result(
    stage: Stage,
    work: Work,
    caller: Caller,
    *,
    group: str,
    name: str,
    target: Target,
    floors: Sequence[Floor] = (),
    note: str = "",
) -> Result:
    """Measure, and put the bare handler before the other floors."""
    measured, floor, peak = compare(stage, work, caller)
    bare = Floor(name="bare handler", figure=floor.per_second(), target=target.must, aim=target.aim)
    return Result(
        group=group,
        name=name,
        figure=measured.per_second(),
        floors=(bare, *floors),
        peak=peak,
        note=note,
    )


def tool_figure(*command: str, given: bytes = b"") -> Figure:
    """The figure of a floor that measures itself: count, seconds and processor seconds."""
    found = orjson.loads(call(*command, given=given))
    return Sample(**found).per_second()
