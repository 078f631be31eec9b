"""The benchmarks by name. Every module in `benchmarks.cases` registers its own."""

import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import import_module

from benchmarks import cases
from benchmarks.environment import Environment
from benchmarks.options import Options
from benchmarks.results import Result

Measure = Callable[[Environment], Iterator[Result]]


class Scope(Enum):
    """Which databases a benchmark runs on."""

    EACH = "each database"
    ONCE = "no database"
    POSTGRESQL = "PostgreSQL"


@dataclass(frozen=True)
class Benchmark:
    """A function that measures; a plain `make bench` runs the `usual` ones."""

    measure: Measure
    scope: Scope
    usual: bool

    def runs_on(self, kind: str, options: Options) -> bool:
        """Whether it runs on this database; without a database it runs with the first one."""
        if self.scope is Scope.ONCE:
            return kind == options.databases[0]
        return self.scope is Scope.EACH or kind == "postgresql"


_registered: dict[str, Benchmark] = {}


def benchmark(name: str, scope: Scope, *, usual: bool = True) -> Callable[[Measure], Measure]:
    """Register a function under a name for `--only`."""

    def register(measure: Measure) -> Measure:
        _registered[name] = Benchmark(measure, scope, usual)
        return measure

    return register


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks, those without a database first."""
    for module in pkgutil.iter_modules(cases.__path__, f"{cases.__name__}."):
        import_module(module.name)
    return dict(sorted(_registered.items(), key=lambda item: item[1].scope is not Scope.ONCE))


def selected(options: Options) -> dict[str, Benchmark]:
    """What the options name, else all or the usual ones."""
    return {
        name: item
        for name, item in benchmarks().items()
        if (name in options.only if options.only else item.usual or options.everything)
    }
