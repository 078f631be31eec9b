"""Pages of jobs that match filters; with `--history 1000000` also among a million jobs."""

from collections.abc import Iterator
from typing import Final

from benchmarks import seed
from benchmarks.environment import Environment
from benchmarks.measure import Workload, measure_requests
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Result, grouped
from devtools.user_pool import USER

_FEW: Final = 1_000
_PAGE: Final = 20

SEARCHES: Final = {
    "most of the jobs": "status=finished",
    "the oldest of them": "version=v0",
    "a rare label": "label=rare",
    "few of them, by name": "name=*_*0007&sort=job_name",
    "all, with details": "details=true&sort=job_name",
    "all, counted": "count=true",
}


@benchmark("finding", Scope.EACH, usual=False)
def finding(env: Environment) -> Iterator[Result]:
    """GET /jobs with filters, in some orders"""
    if not env.history:
        seed.add_jobs(env.database, _FEW, user=f"'{USER}'", prefix="history_few")
    _vary(env)
    group = f"Pages of {_PAGE} jobs on {env.database.title}, {env.options.connections} connections"
    if env.history:
        group += f", {grouped(env.history)} jobs in the table"
    for name, query in SEARCHES.items():
        target = f"/jobs?limit={_PAGE}&{query}"
        request = env.user.message("GET", target)
        workload = Workload(env.user, [request], len(env.ask_gateway(target)))
        yield measure_requests(env, workload, group, f"{name} ({query})")


def _vary(env: Environment) -> None:
    """Give the user's jobs labels, and some of them another status or version."""
    own = f"user_id = '{USER}'"
    ((first, last),) = env.database.fetch(f"SELECT min(id), max(id) FROM jobs WHERE {own}")
    oldest = f"{own} AND id < {first + (last - first) // 100}"
    label = "INSERT INTO job_labels (job_id, user_id, key, value, date_created) SELECT id, user_id,"
    env.database.execute(
        f"UPDATE jobs SET status = 'error' WHERE {own} AND id % 200 = 0",
        "UPDATE jobs SET application = "
        + env.database.json("""'{"application":"decode","version":"v0","entrypoint":"train"}'""")
        + f" WHERE {oldest}",
        f"DELETE FROM job_labels WHERE {own}",
        f"{label} 'all', 'x', date_created FROM jobs WHERE {own}",
        f"{label} 'rare', 'x', date_created FROM jobs WHERE {oldest}",
        "ANALYZE" if env.database.is_sqlite else "VACUUM ANALYZE",
    )
