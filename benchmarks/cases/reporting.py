"""What it costs that many workers report: the gateway's and PostgreSQL's time, and rows written."""

from collections.abc import Iterator
from typing import Any, Final

from benchmarks import seed
from benchmarks.figures import Figure, Result, percentile
from benchmarks.measure import plan, run_load
from benchmarks.stage import Stage
from devtools import proc

_REPORT_EVERY: Final = 10.0
_LEAST_SECONDS: Final = 60.0
_CONNECTIONS: Final = 64
_HEARD_WITHIN: Final = 30
"""Seconds over which the workers' last signs of life are spread, as in the long run."""

_COUNTED: Final = (
    "SELECT n_tup_upd, n_tup_hot_upd, autovacuum_count, n_dead_tup, pg_relation_size('jobs')"
    " FROM pg_stat_user_tables WHERE relname = 'jobs'"
)
_SERVER: Final = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
_PATIENCE: Final = 2.0


def reporting(stage: Stage) -> Iterator[Result]:
    """what it costs that 10 000 running jobs report every ten seconds (takes a minute)"""
    count = stage.options.reporting
    seconds = max(stage.options.seconds, _LEAST_SECONDS if count > 1_000 else 0.0)
    database = stage.database
    ids = seed.add_jobs(database, count, user="'reporting'", prefix="reporting", status="running")
    database.execute(
        f"UPDATE jobs SET last_seen_at = last_seen_at - random() * interval '{_HEARD_WITHIN} s'",
        "VACUUM ANALYZE jobs",
    )
    body = {"status": "running", "runtime_details": None}
    requests = [
        stage.peer.json("PUT", "/_job_status", {"job_id": number, **body}) for number in ids
    ]
    server = proc.parent(int(database.fetch(_SERVER)[0][0]))
    before, spent = database.fetch(_COUNTED)[0], proc.family_cpu_seconds(server)
    paced = plan(
        stage.peer,
        requests,
        stage.options,
        rate=count / _REPORT_EVERY,
        connections=_CONNECTIONS,
        seconds=seconds,
    )
    sent = run_load(paced, [stage.gateway.pid])
    spent = proc.family_cpu_seconds(server) - spent
    database.execute(f"SELECT pg_sleep({_PATIENCE})")  # backends tell now and then what they did
    after = database.fetch(_COUNTED)[0]
    yield from _results(stage, sent.seconds, sent.cpu_seconds, spent, before, after)
    yield Result(
        group=_group(stage),
        name="answered within (p99)",
        figure=Figure(value=1000 * percentile(sent.latencies, 0.99), unit="ms"),
        note=f"{sent.count} updates",
    )
    database.execute("DELETE FROM jobs WHERE user_id = 'reporting'")


def _group(stage: Stage) -> str:
    return f"{stage.options.reporting} running jobs that report every 10 s"


def _results(
    stage: Stage,
    seconds: float,
    gateway: float,
    server: float,
    before: tuple[Any, ...],
    after: tuple[Any, ...],
) -> Iterator[Result]:
    group = _group(stage)
    for name, spent in (("gateway", gateway), ("PostgreSQL", server)):
        share = Figure(value=100 * spent / seconds, unit="% of a core")
        yield Result(group=group, name=f"{name}: processor time", figure=share)
    updates, on_their_page, vacuums, _, size = (
        new - old for new, old in zip(after, before, strict=True)
    )
    yield Result(
        group=group,
        name="rows written",
        figure=Figure(value=updates / seconds),
        note=(
            f"{100 * on_their_page / max(1, updates):.0f} % on their page (HOT);"
            f" {after[3]} dead rows, {vacuums} autovacuums, table grown by {size >> 10} KiB"
        ),
    )
