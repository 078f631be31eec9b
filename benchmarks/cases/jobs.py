"""Requests about jobs, each also beside its statements without HTTP."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from benchmarks import seed
from benchmarks.baselines import statements
from benchmarks.environment import Environment
from benchmarks.isolation import measured_apart
from benchmarks.measure import Workload, load_of, measure_requests, run_load
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Baseline, Result, Sample, grouped
from benchmarks.targets import of_requests
from devtools import proc
from devtools.user_pool import USER

_FINISHED: Final = 1_000
_IN_A_BATCH: Final = 100
_RESPONSE: Final = 800
"""Bytes of the response to `POST /jobs`."""


def _compare(
    env: Environment, what: statements.Statement, name: str, workload: Workload, ids: Sequence[int]
) -> Result:
    database, options = env.database, env.options
    group = f"Requests on {database.title}, {options.connections} connections"
    baselines = []
    if not database.is_sqlite:
        arguments = (database.url, what, USER, ids, options.seconds / 2)
        alone = measured_apart(statements.execute, *arguments).per_second()
        baselines.append(Baseline("asyncpg alone", alone))
    if env.history:
        group += f", {grouped(env.history)} jobs in the table"
    target = of_requests(what, sqlite=database.is_sqlite)
    return measure_requests(env, workload, group, name, target, baselines)


def _finished_jobs(env: Environment) -> list[int]:
    """Ids of finished jobs of the user, which are added once."""
    owned = f"user_id = '{USER}' AND job_name LIKE 'done_%'"
    ((first, last),) = env.database.fetch(f"SELECT min(id), max(id) FROM jobs WHERE {owned}")
    if first is not None:
        return list(range(first, last + 1))
    return seed.add_jobs(env.database, _FINISHED, user=f"'{USER}'", prefix="done")


@benchmark("job", Scope.EACH)
def job(env: Environment) -> Iterator[Result]:
    """GET /jobs/{id}"""
    ids = _finished_jobs(env)
    requests = [env.user.message("GET", f"/jobs/{number}") for number in ids]
    workload = Workload(env.user, requests, len(env.ask_gateway(f"/jobs/{ids[0]}")))
    yield _compare(env, "job", "GET /jobs/{id}", workload, ids)


@benchmark("jobs", Scope.EACH)
def jobs(env: Environment) -> Iterator[Result]:
    """GET /jobs?limit=100"""
    target = "/jobs?limit=100"
    ids, request = _finished_jobs(env), env.user.message("GET", target)
    workload = Workload(env.user, [request], len(env.ask_gateway(target)))
    yield _compare(env, "jobs", f"GET {target}", workload, ids)


@benchmark("keepalive", Scope.EACH)
def keepalive(env: Environment) -> Iterator[Result]:
    """PUT /_job_status without a change, for 10 000 running jobs"""
    owner, prefix, count = f"'{USER}'", f"running_{env.history}", env.options.running
    ids = seed.add_jobs(env.database, count, user=owner, prefix=prefix, status="running")
    bodies = [{"job_id": id_, "status": "running", "runtime_details": None} for id_ in ids]
    requests = [env.peer.json("PUT", "/_job_status", body) for body in bodies]
    workload = Workload(env.peer, requests, len(b'"running"'))
    yield _compare(env, "keepalive", "PUT /_job_status", workload, ids)
    env.database.execute(f"DELETE FROM jobs WHERE id BETWEEN {ids[0]} AND {ids[-1]}")


@benchmark("submit", Scope.EACH)
def submit(env: Environment) -> Iterator[Result]:
    """POST /jobs with two small inputs"""
    workload = Workload(env.user, [submission(env)], _RESPONSE, status=201)
    yield _compare(env, "submit", "POST /jobs", workload, _finished_jobs(env))


@benchmark("batch", Scope.EACH)
def batch(env: Environment) -> Iterator[Result]:
    """POST /jobs/batch with 100 jobs of two small inputs, beside 100 single submissions"""
    jobs = [{"job_name": f"batch_@@@@@@@@@@_{number}"} for number in range(_IN_A_BATCH)]
    body = {"template": _submission(), "jobs": jobs}
    yield _beside_singles(
        env, "jobs by POST /jobs/batch", env.user.json("POST", "/jobs/batch", body), _IN_A_BATCH
    )


@benchmark("keyed", Scope.EACH)
def keyed(env: Environment) -> Iterator[Result]:
    """POST /jobs with an Idempotency-Key, beside those without"""
    head, _, rest = submission(env).partition(b"\r\n")
    request = head + b"\r\nIdempotency-Key: bench-@@@@@@@@@@\r\n" + rest
    yield _beside_singles(env, "POST /jobs with a key", request, 1)


def _beside_singles(env: Environment, name: str, request: bytes, jobs: int) -> Result:
    """Jobs per second by requests that make so many each, in turns with single submissions."""
    options = env.options
    changes = {"seconds": options.seconds / options.slices, "status": 201}
    few = {"connections": max(1, options.connections // 8)} if jobs > 1 else {}
    ours = load_of(env, env.user, [request], **changes, **few)
    single = load_of(env, env.user, [submission(env)], **changes)
    measured, alone = Sample(), Sample()
    proc.reset_peak([env.gateway.pid])
    for _ in range(options.slices):
        measured += run_load(ours, env.gateway)
        alone += run_load(single, env.gateway)
    measured.count *= jobs
    group = f"Jobs on {env.database.title}"
    baseline = Baseline("single submissions", alone.per_second(), must=5.0 if jobs > 1 else None)
    peak = proc.peak_mib([env.gateway.pid])
    return Result(group, name, measured.per_second(), (baseline,), peak)


def submission(env: Environment) -> bytes:
    """A `POST /jobs` whose name the load generator makes unique."""
    return env.user.json("POST", "/jobs", {"job_name": "bench_@@@@@@@@@@", **_submission()})


def _submission() -> dict[str, Any]:
    return {
        "environment": "cloud",
        "priority": 0,
        "application": seed.APPLICATION,
        "attributes": seed.ATTRIBUTES,
        "hardware": seed.HARDWARE,
    }
