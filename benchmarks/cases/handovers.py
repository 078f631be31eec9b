"""Hand-overs: from the 201 to the peer, jobs forwarded per second, and what claims cost."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import orjson

from benchmarks import seed
from benchmarks.cases.requests import submission
from benchmarks.figures import Figure, Floor, Result, Sample, percentile
from benchmarks.measure import plan, run_load, tool_figure
from benchmarks.messages import Caller
from benchmarks.processes import ToolFailed
from benchmarks.stage import Stage
from deploy.sandbox.ports import LOOPBACK
from devtools import proc

_IDLE_RATE: Final = 20.0
_BUSY_RATE: Final = 200.0
_IDLE_CONNECTIONS: Final = 1
_PATIENCE: Final = 60.0
_FLOOR_SECONDS: Final = 1.0
_CLAIMS_PER_SECOND: Final = 10_000
_WAKE: Final = "NOTIFY opencloud_handovers"


def latency(stage: Stage) -> Iterator[Result]:
    """from the 201 of POST /jobs until the peer has the job"""
    _drop_leftovers(stage)
    with stage.dispatchers(1):
        for name, rate, connections in (
            ("idle", _IDLE_RATE, _IDLE_CONNECTIONS),
            ("under load", _BUSY_RATE, stage.options.connections),
        ):
            paced = partial(plan, options=stage.options, rate=rate, connections=connections)
            stage.ask_standins("/arrivals", "DELETE")
            sent = run_load(paced(stage.user, [submission(stage)], status=201, keep=True))
            answered = {int(orjson.loads(text)["id"]): moment for moment, text in sent.kept}
            arrived = _wait_for(stage, len(answered))
            to_peer = Caller(host=LOOPBACK, port=stage.standins_port)
            bare = to_peer.message("POST", "/_jobs", seed.PAYLOAD.encode())
            floor = run_load(paced(to_peer, [bare], status=201, seconds=_FLOOR_SECONDS))
            yield from _latency_results(
                stage,
                f"{name}, {rate:.0f} jobs/s",
                waits=[max(0.0, arrived[number] - moment) for number, moment in answered.items()],
                calls=sent.latencies,
                bare=floor.latencies,
            )


def _latency_results(
    stage: Stage, name: str, *, waits: list[float], calls: list[float], bare: list[float]
) -> Iterator[Result]:
    for part in (0.5, 0.99):
        note = f"the POST itself {1000 * percentile(calls, part):.1f} ms"
        if part > 0.5:
            note += f"; {len(waits)} jobs"
            note += " (polled)" if stage.database.is_sqlite else "; to reach: 50 ms, aim: 20 ms"
        yield Result(
            group=f"From the 201 to the peer on {stage.database.title}",
            name=f"{name}: p{part * 100:.0f}",
            figure=_milliseconds(waits, part),
            floors=(Floor(name="a POST to the peer", figure=_milliseconds(bare, part)),),
            note=note,
        )


def _milliseconds(values: list[float], part: float) -> Figure:
    return Figure(value=1000 * percentile(values, part), unit="ms")


def _wait_for(stage: Stage, count: int) -> dict[int, float]:
    """When each job came, once so many have. Raises `ToolFailed`."""
    _wait_for_count(stage, count)
    arrived = stage.ask_standins("/arrivals")
    return {int(number): moment for number, moment in arrived.items()}


def _wait_for_count(stage: Stage, count: int) -> dict[str, Any]:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        summary: dict[str, Any] = stage.ask_standins("/summary")
        if summary["repeated"]:
            raise ToolFailed(f"{summary['repeated']} jobs reached the peer more than once")
        if summary["count"] >= count:
            return summary
        time.sleep(0.05)
    raise ToolFailed(f"{summary['count']} of {count} jobs reached the peer")


def _forwarding(stage: Stage, count: int) -> Iterator[Result]:
    jobs = stage.options.forwarded * count
    _drop_leftovers(stage)
    with stage.dispatchers(count) as dispatchers:
        stage.ask_standins("/arrivals", "DELETE")
        ids = seed.add_jobs(
            stage.database, jobs, user="'forwarded'", prefix=f"forward_{count}", status="queued"
        )
        pids = [child.pid for child in dispatchers]
        before = proc.cpu_seconds(pids)
        proc.reset_peak(pids)
        seed.add_handovers(stage.database, ids)
        if not stage.database.is_sqlite:
            stage.database.execute(_WAKE)
        summary = _wait_for_count(stage, jobs)
        _wait_until_settled(stage, ids)
        sample = Sample(
            count=jobs - 1,  # from the first arrival to the last
            seconds=summary["last"] - summary["first"],
            cpu_seconds=proc.cpu_seconds(pids) - before,
        )
        peak = proc.peak_mib(pids)
    floor = tool_figure(
        "benchmarks.handover_floor",
        f"--url={stage.standins_url}",
        f"--count={stage.options.forwarded}",
    )
    yield Result(
        group=f"Jobs forwarded on {stage.database.title}",
        name=f"{count} dispatcher" + ("s" if count > 1 else ""),
        figure=sample.per_second(),
        floors=(Floor(name="the same POSTs, no database", figure=floor),),
        peak=peak,
        note="aim: 2 000 jobs/s on two cores" if count == 1 else "",
    )


def _drop_leftovers(stage: Stage) -> None:
    """What other benchmarks submitted is not what is measured."""
    stage.database.execute("DELETE FROM handovers")


def _wait_until_settled(stage: Stage, ids: list[int]) -> None:
    """The processor time for settling counts as well."""
    left = (
        "SELECT count(*) FROM handovers WHERE settled_at IS NULL"
        f" AND job_id BETWEEN {ids[0]} AND {ids[-1]}"
    )
    end = time.monotonic() + _PATIENCE
    while stage.database.fetch(left)[0][0]:
        if time.monotonic() > end:
            raise ToolFailed("the dispatchers did not settle what they delivered")
        time.sleep(0.02)


def forward(stage: Stage) -> Iterator[Result]:
    """jobs forwarded per second by one dispatcher"""
    yield from _forwarding(stage, 1)


def forward_many(stage: Stage) -> Iterator[Result]:
    """jobs forwarded per second by two and by four dispatchers"""
    yield from _forwarding(stage, 2)
    yield from _forwarding(stage, 4)


def claims(stage: Stage) -> Iterator[Result]:
    """claims per second, with nothing and with 1 000 000 finished rows behind them"""
    seconds = stage.options.seconds
    waiting = int(seconds * _CLAIMS_PER_SECOND)
    behind = stage.options.rows_behind
    bare = _claims(stage, waiting, f"claimable_{0}", seconds)
    ids = seed.add_jobs(stage.database, behind, user="'claimed'", prefix="claimed")
    seed.add_handovers(stage.database, ids, state="done")
    full = _claims(stage, waiting, f"claimable_{behind}", seconds)
    group = f"Claims of 16, each settled, on {stage.database.title}"
    yield Result(group=group, name="nothing behind them", figure=bare)
    yield Result(
        group=group,
        name=f"{behind:,} finished rows behind them".replace(",", " "),
        figure=full,
        floors=(Floor(name="nothing behind them", figure=bare, aim=1.0),),
    )


def _claims(stage: Stage, waiting: int, prefix: str, seconds: float) -> Figure:
    stage.database.execute("DELETE FROM handovers WHERE settled_at IS NULL")
    ids = seed.add_jobs(stage.database, waiting, user="'waiting'", prefix=prefix, status="queued")
    seed.add_handovers(stage.database, ids)
    stage.database.execute("ANALYZE")
    return tool_figure("benchmarks.claiming", f"--url={stage.database.url}", f"--seconds={seconds}")
