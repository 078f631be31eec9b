"""Hand-overs to the worker-facing API: latency, and jobs per second."""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from benchmarks import seed
from benchmarks.baselines import submissions
from benchmarks.cases.jobs import submission
from benchmarks.environment import Environment
from benchmarks.isolation import ToolFailed, measured_apart
from benchmarks.measure import load_of, run_load, wait_until
from benchmarks.messages import Endpoint
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Baseline, Result, Sample, milliseconds
from deploy.sandbox.ports import LOOPBACK
from devtools import proc

_IDLE_RATE: Final = 20.0
_BUSY_RATE: Final = 200.0
_BASELINE_SECONDS: Final = 1.0


@benchmark("latency", Scope.EACH)
def latency(env: Environment) -> Iterator[Result]:
    """from the 201 of POST /jobs until the worker-facing API has the job"""
    _delete_pending(env)
    peer = Endpoint(LOOPBACK, env.standins.admin_port)
    bare_post = peer.message("POST", "/_jobs", seed.PAYLOAD.encode())
    with env.dispatcher():
        for name, rate, connections in (
            ("idle", _IDLE_RATE, 1),
            ("under load", _BUSY_RATE, env.options.connections),
        ):
            paced: dict[str, Any] = {"rate": rate, "connections": connections, "status": 201}
            env.ask_standins("/arrivals", "DELETE")
            sent = run_load(load_of(env, env.user, [submission(env)], keep=True, **paced))
            accepted = {int(orjson.loads(text)["id"]): at for at, text in sent.kept}
            _wait_for_arrivals(env, len(accepted))
            arrived = env.ask_standins("/arrivals")
            bare = run_load(load_of(env, peer, [bare_post], seconds=_BASELINE_SECONDS, **paced))
            waits = [max(0.0, arrived[str(number)] - at) for number, at in accepted.items()]
            for part in (0.5, 0.99):
                yield _latency(env, f"{name}, {rate:.0f} jobs/s", part, waits, sent, bare)


def _latency(
    env: Environment, name: str, part: float, waits: list[float], sent: Sample, bare: Sample
) -> Result:
    note = f"POST /jobs itself {milliseconds(sent.latencies, part).value:.1f} ms"
    if part > 0.5:
        target = "polled" if env.database.is_sqlite else "must: 50 ms, aim: 20 ms"
        note += f"; {len(waits)} jobs; {target}"
    group = f"From the 201 to the worker-facing API on {env.database.title}"
    floor = Baseline("a POST to it", milliseconds(bare.latencies, part))
    name, figure = f"{name}: p{part * 100:.0f}", milliseconds(waits, part)
    return Result(group, name, figure, (floor,), note=note)


@benchmark("forward", Scope.POSTGRESQL)
def forward(env: Environment) -> Iterator[Result]:
    """jobs forwarded per second by one dispatcher"""
    count = env.options.forwarded
    _delete_pending(env)
    with env.dispatcher() as dispatcher:
        env.ask_standins("/arrivals", "DELETE")
        prefix, pids = f"forward_{env.history}", [dispatcher.pid]
        ids = seed.add_jobs(env.database, count, user="'other'", prefix=prefix, status="queued")
        before = proc.cpu_seconds(pids)
        proc.reset_peak(pids)
        seed.add_handovers(env.database, ids)
        env.database.execute("NOTIFY opencloud_handovers")
        summary = _wait_for_arrivals(env, count)
        _wait_until_settled(env, ids)
        forwarded = Sample(
            count=count - 1,  # from the first arrival to the last
            seconds=summary["last"] - summary["first"],
            cpu_seconds=proc.cpu_seconds(pids) - before,
        )
        peak = proc.peak_mib(pids)
    bare = measured_apart(submissions.submit, env.standins_url, count)
    group, name = f"Jobs forwarded on {env.database.title}", "by one dispatcher"
    baselines = (Baseline("the same POSTs, no database", bare.per_second()),)
    note = "aim: 2 000 jobs/s on two cores"
    yield Result(group, name, forwarded.per_second(), baselines, peak, note)


def _delete_pending(env: Environment) -> None:
    """Other benchmarks have submitted jobs."""
    env.database.execute("DELETE FROM handovers WHERE settled_at IS NULL")


def _wait_for_arrivals(env: Environment, count: int) -> dict[str, Any]:
    """The stand-in's summary once `count` jobs have arrived. Raises `ToolFailed`."""

    def arrived() -> dict[str, Any]:
        summary: dict[str, Any] = env.ask_standins("/summary")
        if summary["repeated"]:
            raise ToolFailed(f"{summary['repeated']} jobs were forwarded more than once")
        return summary if summary["count"] >= count else {}

    return wait_until(arrived, f"{count} jobs did not arrive")


def _wait_until_settled(env: Environment, ids: list[int]) -> None:
    """The processor time for settling counts as well."""
    unsettled = (
        "SELECT count(*) FROM handovers WHERE settled_at IS NULL"
        f" AND job_id BETWEEN {ids[0]} AND {ids[-1]}"
    )
    wait_until(lambda: not env.database.fetch(unsettled)[0][0], "deliveries were not settled")
