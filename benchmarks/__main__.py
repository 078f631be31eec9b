"""`python -m benchmarks`: run the selected benchmarks and print the report."""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import machine, report, seed
from benchmarks.environment import Environment, database_server
from benchmarks.isolation import ToolFailed
from benchmarks.options import Options, parse
from benchmarks.registry import Benchmark, Scope, benchmarks, selected
from benchmarks.results import Result
from devtools.postgres import NoPostgres, Server
from devtools.services import DidNotStart
from devtools.user_pool import USER


def run(options: Options, server: Server | None) -> Iterator[Result]:
    """Yield each result when it is there."""
    for kind in options.databases:
        here = {
            name: item for name, item in selected(options).items() if item.runs_on(kind, options)
        }
        if not here:
            continue
        with Environment(options, kind, server) as environment:
            yield from _measure(environment, here)
            if options.history:
                seed.add_history(environment.database, options.history, USER)
                environment.history = options.history
                with_database = {n: item for n, item in here.items() if item.scope != Scope.ONCE}
                yield from _measure(environment, with_database)


def _measure(environment: Environment, chosen: dict[str, Benchmark]) -> Iterator[Result]:
    for name, item in chosen.items():
        print(f"{environment.database.title}: {name} …", file=sys.stderr, flush=True)
        yield from item.measure(environment)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = parse(sys.argv[1:], benchmarks())
    try:
        with ExitStack() as stack:
            server = None
            if "postgresql" in options.databases:
                server = stack.enter_context(database_server())
            facts = machine.describe(server)
            results = list(run(options, server))
    except (DidNotStart, TimeoutError, ToolFailed, NoPostgres) as error:
        raise SystemExit(f"benchmarks: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    print(report.render(facts, results))


if __name__ == "__main__":
    main()
