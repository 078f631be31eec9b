"""The benchmarks by name: what runs on which database, and what runs only when asked for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from benchmarks.cases import (
    handovers,
    large_trees,
    reporting,
    requests,
    s3_transfers,
    small_files,
    transfers,
)
from benchmarks.figures import Result
from benchmarks.options import Options
from benchmarks.stage import Stage


class Scope(Enum):
    """On which databases a benchmark says something."""

    EACH = "each database"
    ONCE = "no database"
    POSTGRESQL = "PostgreSQL"


@dataclass(frozen=True)
class Benchmark:
    """`usual` ones are part of a plain `make bench`."""

    measure: Callable[[Stage], Iterator[Result]]
    scope: Scope
    usual: bool = True

    @property
    def description(self) -> str:
        return (self.measure.__doc__ or "").splitlines()[0]


BENCHMARKS: Final[dict[str, Benchmark]] = {
    "welcome": Benchmark(requests.welcome, Scope.ONCE),
    "user": Benchmark(requests.user, Scope.ONCE),
    "listing": Benchmark(requests.listing, Scope.ONCE),
    "upload": Benchmark(transfers.upload, Scope.ONCE),
    "download": Benchmark(transfers.download, Scope.ONCE),
    "zip": Benchmark(transfers.zip_large, Scope.ONCE),
    "s3-upload": Benchmark(s3_transfers.upload, Scope.ONCE),
    "s3-download": Benchmark(s3_transfers.download, Scope.ONCE),
    "small-uploads": Benchmark(small_files.small_uploads, Scope.ONCE),
    "zip-small": Benchmark(small_files.zip_small, Scope.ONCE, usual=False),
    "listing-10000": Benchmark(requests.listing_10000, Scope.ONCE, usual=False),
    "large-tree": Benchmark(large_trees.local, Scope.ONCE, usual=False),
    "s3-large-tree": Benchmark(large_trees.on_s3, Scope.ONCE, usual=False),
    "job": Benchmark(requests.job, Scope.EACH),
    "jobs": Benchmark(requests.jobs, Scope.EACH),
    "keepalive": Benchmark(requests.keepalive, Scope.EACH),
    "submit": Benchmark(requests.submit, Scope.EACH),
    "latency": Benchmark(handovers.latency, Scope.EACH),
    "forward": Benchmark(handovers.forward, Scope.POSTGRESQL),
    "forward-many": Benchmark(handovers.forward_many, Scope.POSTGRESQL, usual=False),
    "claims": Benchmark(handovers.claims, Scope.POSTGRESQL, usual=False),
    "reporting": Benchmark(reporting.reporting, Scope.POSTGRESQL, usual=False),
    "history": Benchmark(requests.with_history, Scope.EACH),
}


def chosen(options: Options) -> dict[str, Benchmark]:
    """What is to be run: what was named, else all or the usual ones."""
    if options.only:
        return {name: BENCHMARKS[name] for name in BENCHMARKS if name in options.only}
    return {
        name: benchmark
        for name, benchmark in BENCHMARKS.items()
        if benchmark.usual or options.everything
    }


def runs_on(benchmark: Benchmark, kind: str, options: Options) -> bool:
    """Whether it runs on this database; what needs none runs on the first one only."""
    match benchmark.scope:
        case Scope.EACH:
            return True
        case Scope.ONCE:
            return kind == options.databases[0]
        case Scope.POSTGRESQL:
            return kind == "postgresql"
