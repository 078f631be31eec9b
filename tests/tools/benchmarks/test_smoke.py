"""Every benchmark for a fraction of a second: that it runs, not what it measures."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from benchmarks.environment import Environment
from benchmarks.options import Options, parse
from benchmarks.registry import Scope, benchmarks, selected
from benchmarks.report import render
from devtools.database import KINDS, Kind
from devtools.postgres import Server


@pytest.fixture(scope="module")
def environment_of(
    postgres: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Kind], Environment]]:
    """Environments by database, each set up once."""
    options = Options(
        seconds=0.15, slices=1, connections=4, size=1, repeats=1,
        small_files=20, unpacked=20, listed=20, tree_files=300, running=50, forwarded=50,
        streams=20, folder=tmp_path_factory.mktemp("benchmarks"),
    )  # fmt: skip
    with ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(Environment(options, kind, postgres)))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in KINDS
        for name, benchmark in benchmarks().items()
        if benchmark.runs_on(kind, Options())
    ],
)
def test_a_benchmark_yields_figures_and_baselines(
    environment_of: Callable[[Kind], Environment], kind: Kind, name: str
) -> None:
    environment = environment_of(kind)
    results = list(benchmarks()[name].measure(environment))
    assert results
    shown = render([("cores", "1")], results)
    for result in results:
        assert result.figure.value >= 0
        assert result.name in shown
        assert all(baseline.figure.value > 0 for baseline in result.baselines)


def test_a_plain_run_leaves_out_the_long_ones() -> None:
    assert selected(Options()).keys() < selected(Options(everything=True)).keys()
    assert list(selected(Options(only=("job", "welcome")))) == ["welcome", "job"]


def test_what_needs_no_database_runs_once() -> None:
    both = Options()
    once = next(item for item in benchmarks().values() if item.scope is Scope.ONCE)
    assert [once.runs_on(kind, both) for kind in both.databases] == [True, False]


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--only", "nonsense"], benchmarks())
    assert "nonsense" in capsys.readouterr().err


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with Environment(Options(folder=tmp_path), "sqlite", None) as environment:
        assert environment.ask_gateway("/user")
        pids = [environment.gateway.pid, environment.handlers.pid]
    assert not list(tmp_path.iterdir())
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
