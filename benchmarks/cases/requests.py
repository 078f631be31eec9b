"""Requests that read: per second, and processor time for each."""

from collections.abc import Iterator
from typing import Final

from benchmarks import seed
from benchmarks.figures import Floor, Result
from benchmarks.measure import Work, request_result, tool_figure
from benchmarks.stage import Stage
from benchmarks.targets import Target, of_requests

JOBS: Final = 1_000
RUNNING: Final = 10_000
_FILE_SIZE: Final = 100


def _group(stage: Stage, behind: int = 0) -> str:
    where = f"Requests on {stage.database.title}, {stage.options.connections} connections"
    return f"{where}, " + f"{behind:,} jobs behind".replace(",", " ") if behind else where


_FREE_GROUP: Final = "Requests that need no database"


def _reading(stage: Stage, target: str) -> Work:
    """A GET, and the size of its answer."""
    return Work(requests=[stage.user.message("GET", target)], answer=len(stage.ask_gateway(target)))


def _simple(stage: Stage, target: str, name: str) -> Iterator[Result]:
    yield request_result(
        stage,
        _reading(stage, target),
        stage.user,
        group=_FREE_GROUP,
        name=f"GET {target}",
        target=of_requests(name),
    )


def welcome(stage: Stage) -> Iterator[Result]:
    """GET /"""
    yield from _simple(stage, "/", "welcome")


def user(stage: Stage) -> Iterator[Result]:
    """GET /user: the check of a token"""
    yield from _simple(stage, "/user", "user")


def _listings(stage: Stage, count: int, directories: int, query: str = "") -> Work:
    """Listings of directories with so many files each, in turns: equal ones that are asked for at
    the same time are made once, which would hide what one costs."""
    targets = []
    for number in range(directories):
        folder = stage.tree / "data" / f"listed_{count}_{number}"
        if not folder.exists():
            names = [f"frame_{index:06d}.tif" for index in range(count)]
            seed.add_files(folder, names, _FILE_SIZE)
        targets.append(f"/files/data/{folder.name}{query}")
    return Work(
        requests=[stage.user.message("GET", target) for target in targets],
        answer=len(stage.ask_gateway(targets[0])),
    )


def listing(stage: Stage) -> Iterator[Result]:
    """a listing of 500 files, each request another directory, and all the same one"""
    count = stage.options.listed
    for name, directories, target in (
        (f"listing of {count} files", 2 * stage.options.connections, of_requests("listing")),
        (f"listing of {count} files, the same for all", 1, Target()),
    ):
        work = _listings(stage, count, directories)
        yield request_result(stage, work, stage.user, group=_FREE_GROUP, name=name, target=target)


def listing_10000(stage: Stage) -> Iterator[Result]:
    """a listing of 10 000 files, and a page of it"""
    count = 20 * stage.options.listed
    shown = f"{count:,}".replace(",", " ")
    middle = f"data/listed_{count}_0/frame_{count // 2:06d}"
    for name, query in (
        (f"listing of {shown} files", ""),
        (f"100 out of {shown} files", f"?limit=100&after={middle}"),
    ):
        work = _listings(stage, count, 4, query)
        yield request_result(stage, work, stage.user, group=_FREE_GROUP, name=name, target=Target())


def _database_floor(stage: Stage, what: str, ids: list[int]) -> Floor:
    """The same statement without HTTP."""
    figure = tool_figure(
        "benchmarks.database_floor", what, f"--url={stage.database.url}",
        f"--user={stage.identity.user}", f"--seconds={stage.options.seconds / 2}",
        "--ids", str(ids[0]), str(ids[-1]),
    )  # fmt: skip
    driver = "sqlite3" if stage.database.is_sqlite else "asyncpg"
    return Floor(name=f"{driver} alone", figure=figure)


def _some_jobs(stage: Stage) -> list[int]:
    """Finished jobs of the caller's; made once."""
    wanted = f"user_id = '{stage.identity.user}' AND job_name LIKE 'done_%'"
    found = stage.database.fetch(f"SELECT min(id), max(id) FROM jobs WHERE {wanted}")
    if found[0][0] is not None:
        return list(range(found[0][0], found[0][1] + 1))
    return seed.add_jobs(stage.database, JOBS, user=f"'{stage.identity.user}'", prefix="done")


def job(stage: Stage, behind: int = 0) -> Iterator[Result]:
    """GET /jobs/{id}"""
    ids = _some_jobs(stage)
    work = Work(
        requests=[stage.user.message("GET", f"/jobs/{number}") for number in ids],
        answer=len(stage.ask_gateway(f"/jobs/{ids[0]}")),
    )
    yield request_result(
        stage,
        work,
        stage.user,
        group=_group(stage, behind),
        name="GET /jobs/{id}",
        target=of_requests("job", sqlite=stage.database.is_sqlite),
        floors=[_database_floor(stage, "job", ids)],
    )


def jobs(stage: Stage, behind: int = 0) -> Iterator[Result]:
    """GET /jobs?limit=100"""
    ids = _some_jobs(stage)
    yield request_result(
        stage,
        _reading(stage, "/jobs?limit=100"),
        stage.user,
        group=_group(stage, behind),
        name="GET /jobs?limit=100",
        target=of_requests("jobs", sqlite=stage.database.is_sqlite),
        floors=[_database_floor(stage, "jobs", ids)],
    )


def keepalive(stage: Stage, behind: int = 0) -> Iterator[Result]:
    """PUT /_job_status that changes nothing, over 10 000 running jobs"""
    prefix = f"running_{behind}"
    ids = seed.add_jobs(
        stage.database, RUNNING, user=f"'{stage.identity.user}'", prefix=prefix, status="running"
    )
    requests = [
        stage.peer.json(
            "PUT",
            "/_job_status",
            {"job_id": number, "status": "running", "runtime_details": None},
        )
        for number in ids
    ]
    yield request_result(
        stage,
        Work(requests=requests, answer=len(b'"running"')),
        stage.peer,
        group=_group(stage, behind),
        name="PUT /_job_status",
        target=of_requests("keepalive", sqlite=stage.database.is_sqlite),
        floors=[_database_floor(stage, "glance", ids)],
    )
    stage.database.execute(f"DELETE FROM jobs WHERE id BETWEEN {ids[0]} AND {ids[-1]}")


def submit(stage: Stage, behind: int = 0) -> Iterator[Result]:
    """POST /jobs with two small inputs"""
    ids = _some_jobs(stage)
    yield request_result(
        stage,
        Work(requests=[submission(stage)], answer=_ANSWERED_JOB, status=201),
        stage.user,
        group=_group(stage, behind),
        name="POST /jobs",
        target=of_requests("submit", sqlite=stage.database.is_sqlite),
        floors=[_database_floor(stage, "submit", ids)],
    )


_ANSWERED_JOB: Final = 800


def submission(stage: Stage) -> bytes:
    """A `POST /jobs` whose name the load generator makes unique."""
    body = {
        "job_name": "bench_@@@@@@@@@@",
        "environment": "cloud",
        "priority": 0,
        "application": seed.APPLICATION,
        "attributes": seed.ATTRIBUTES,
        "hardware": seed.HARDWARE,
    }
    return stage.user.json("POST", "/jobs", body)


_OF_JOBS: Final = (job, jobs, keepalive, submit)


def with_history(stage: Stage) -> Iterator[Result]:
    """the job requests again, with `--history` finished jobs in the table"""
    count = stage.options.history
    if not count:
        return
    seed.add_history(stage.database, count, stage.identity.user)
    for measure in _OF_JOBS:
        yield from measure(stage, count)
