"""`python -m benchmarks`: run what was asked for, then print the report."""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NoReturn

import orjson

from benchmarks import machine, report
from benchmarks.catalogue import BENCHMARKS, chosen, runs_on
from benchmarks.database import postgresql_server, version_of
from benchmarks.figures import Result
from benchmarks.options import Options, parse
from benchmarks.processes import DidNotStart, ToolFailed
from benchmarks.stage import set_up
from devtools.postgres import NoPostgres, Server


def run(options: Options, server: Server | None) -> Iterator[Result]:
    """The results, as they come."""
    asked = chosen(options)
    for kind in options.databases:
        here = {name: item for name, item in asked.items() if runs_on(item, kind, options)}
        if not here:
            continue
        with set_up(options, kind, server) as stage:
            for name, benchmark in here.items():
                print(f"{stage.database.title}: {name} …", file=sys.stderr, flush=True)
                yield from benchmark.measure(stage)


def _show_names() -> None:
    width = max(map(len, BENCHMARKS))
    for name, benchmark in BENCHMARKS.items():
        more = "" if benchmark.usual else " (with --all)"
        print(f"{name:<{width}}  {benchmark.description}{more}")


def _end(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    signal.signal(signal.SIGTERM, _end)
    options = parse(sys.argv[1:], BENCHMARKS)
    if options.listing:
        _show_names()
        return
    try:
        with ExitStack() as stack:
            server = version = None
            if "postgresql" in options.databases:
                server = stack.enter_context(postgresql_server())
                version = version_of(server)
            facts = machine.describe(version)
            results = list(run(options, server))
    except (DidNotStart, ToolFailed, NoPostgres) as error:
        raise SystemExit(f"benchmarks: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if options.json is not None:
        document = {"machine": dict(facts), "results": [item.as_json() for item in results]}
        options.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    print(report.render(facts, results, markdown=options.markdown))


if __name__ == "__main__":
    main()
