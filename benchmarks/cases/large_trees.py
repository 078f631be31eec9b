"""A tree of very many small files: the waits of others while one request works on it."""

import threading
import time
from collections.abc import Iterator
from typing import Final, Self
from uuid import uuid4

from benchmarks import seed
from benchmarks.environment import Environment
from benchmarks.messages import Endpoint
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Baseline, Figure, Result, grouped, milliseconds
from benchmarks.transfer import Request, perform
from devtools import proc

_GROUP: Final = "Longest wait for GET / and GET /jobs during another request for a large tree"
_SIZE: Final = 1024
_SECONDS: Final = 1.0
_PAUSE: Final = 0.005


@benchmark("large-tree", Scope.ONCE, usual=False)
def large_tree(env: Environment) -> Iterator[Result]:
    """listing, archive, submission and deletion of a tree of 100 000 files"""
    count = env.options.tree_files
    seed.add_many_files(env.tree / "data" / "tree", count, _SIZE)
    with _Others(env.user) as others:
        time.sleep(_SECONDS)
    idle = Baseline("idle", others.waited(1.0))
    for name, request in _requests(env.user, f"{grouped(count)} files"):
        rest = proc.resident_mib(env.gateway.pid)
        proc.reset_peak([env.gateway.pid])
        with _Others(env.user) as others:
            taken = _repeat(request)
        peak = proc.peak_mib([env.gateway.pid])
        note = f"took {taken:.2f} s; p99 of the others {others.waited(0.99).value:.1f} ms"
        note += f"; memory before {rest:.0f} MiB"
        yield Result(_GROUP, name, others.waited(1.0), (idle,), peak, note)


def _requests(user: Endpoint, what: str) -> Iterator[tuple[str, Request]]:
    tree, page = "/files/data/tree", "/files/?recursive=true&limit=100&after=data/tree/"
    job = {
        "job_name": uuid4().hex,
        "application": seed.APPLICATION,
        "attributes": {"files_down": {"config_id": "exp1", "data_ids": ["tree"]}},
    }
    yield f"listing of {what}", Request(user, "GET", f"{tree}?recursive=true")
    yield f"page of 100 of {what}", Request(user, "GET", page)
    yield f"zip of {what}", Request(user, "GET", f"{tree}/download")
    yield f"job with {what}", Request(user, "POST", "/jobs", status=201, json=job)
    yield f"deletion of {what}", Request(user, "DELETE", f"{tree}/", status=204)


def _repeat(request: Request) -> float:
    """Seconds per request; those without an effect are repeated for a while."""
    began, count = time.monotonic(), 0
    while not count or (request.method == "GET" and time.monotonic() - began < _SECONDS):
        perform(request)
        count += 1
    return (time.monotonic() - began) / count


class _Others:
    """Another client, which alternates between two small requests during the context."""

    def __init__(self, user: Endpoint) -> None:
        self._user = user
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._latencies: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_PAUSE):
            for target in ("/", "/jobs"):
                self._latencies.append(perform(Request(self._user, "GET", target)).seconds)

    def waited(self, part: float) -> Figure:
        return milliseconds(self._latencies, part)
