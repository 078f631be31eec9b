"""Requests that need no database."""

from collections.abc import Iterator
from typing import Final

from benchmarks import seed
from benchmarks.environment import Environment
from benchmarks.measure import Workload, measure_requests
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Result, grouped
from benchmarks.targets import Target, of_requests

_GROUP: Final = "Requests that need no database"
_FILE_SIZE: Final = 100


def _get(env: Environment, *targets: str) -> Workload:
    return Workload(
        env.user,
        [env.user.message("GET", target) for target in targets],
        len(env.ask_gateway(targets[0])),
    )


@benchmark("welcome", Scope.ONCE)
def welcome(env: Environment) -> Iterator[Result]:
    """GET /"""
    target = of_requests("welcome")
    yield measure_requests(env, _get(env, "/"), _GROUP, "GET /", target)


@benchmark("user", Scope.ONCE)
def user(env: Environment) -> Iterator[Result]:
    """GET /user: the check of a token"""
    target = of_requests("user")
    yield measure_requests(env, _get(env, "/user"), _GROUP, "GET /user", target)


def _listings(env: Environment, count: int, directories: int, query: str = "") -> Workload:
    """Listings of directories with `count` files each, in turns.

    The gateway shares the work of equal listings at the same time, which would hide the cost.
    """
    targets = []
    for number in range(directories):
        folder = env.tree / "data" / f"listed_{count}_{number}"
        if not folder.exists():
            names = [f"frame_{index:06d}.tif" for index in range(count)]
            seed.add_files(folder, names, _FILE_SIZE)
        targets.append(f"/files/data/{folder.name}{query}")
    return _get(env, *targets)


@benchmark("listing", Scope.ONCE)
def listing(env: Environment) -> Iterator[Result]:
    """a listing of 500 files: of another directory in each request, and of the same one"""
    count = env.options.listed
    for name, directories, target in (
        (f"listing of {count} files", 2 * env.options.connections, of_requests("listing")),
        (f"listing of {count} files, the same for all", 1, Target()),
    ):
        workload = _listings(env, count, directories)
        yield measure_requests(env, workload, _GROUP, name, target)


@benchmark("listing-10000", Scope.ONCE, usual=False)
def listing_10000(env: Environment) -> Iterator[Result]:
    """a page of a listing of 10 000 files"""
    count = 20 * env.options.listed
    query = f"?limit=100&after=data/listed_{count}_0/frame_{count // 2:06d}"
    name = f"100 out of {grouped(count)} files"
    yield measure_requests(env, _listings(env, count, 4, query), _GROUP, name)
