"""Every benchmark, for a fraction of a second: that it runs, not what it finds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.catalogue import BENCHMARKS, Scope, chosen, runs_on
from benchmarks.database import Kind
from benchmarks.options import Options, parse
from benchmarks.report import render
from benchmarks.stage import Stage, set_up
from devtools.postgres import Server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def stage(
    request: pytest.FixtureRequest,
    postgres: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    kind: Kind = request.param
    options = Options(
        databases=("sqlite",),
        seconds=0.15,
        slices=1,
        connections=4,
        size=1,
        repeats=1,
        history=300,
        small_files=20,
        listed=20,
        tree_files=300,
        rows_behind=100,
        forwarded=50,
        reporting=50,
        folder=tmp_path_factory.mktemp("benchmarks"),
    )
    with set_up(options, kind, postgres) as stage:
        yield stage


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_finds_figures_and_floors(stage: Stage, name: str) -> None:
    benchmark = BENCHMARKS[name]
    if not runs_on(benchmark, stage.database.kind, stage.options):
        pytest.skip("says nothing on this database")
    results = list(benchmark.measure(stage))
    assert results
    for result in results:
        assert result.figure.value >= 0
        assert result.group
        for floor in result.floors:
            assert floor.figure.value > 0, floor
    assert all(result.name in render([("cores", "1")], [result]) for result in results)


def test_a_plain_run_leaves_the_long_ones_out() -> None:
    assert chosen(Options()).keys() < chosen(Options(everything=True)).keys()
    assert list(chosen(Options(only=("job", "welcome")))) == ["welcome", "job"]


def test_what_needs_no_database_runs_once() -> None:
    both = Options()
    once = next(item for item in BENCHMARKS.values() if item.scope is Scope.ONCE)
    assert [runs_on(once, kind, both) for kind in both.databases] == [True, False]


def test_an_unknown_name_is_refused_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--only", "nonsense"], BENCHMARKS)
    assert "nonsense" in capsys.readouterr().err


def test_everything_is_gone_afterwards(tmp_path: Path) -> None:
    with set_up(Options(folder=tmp_path), "sqlite", None) as stage:
        assert stage.ask_gateway("/user")
        pids = [stage.gateway.pid, stage.bare_pid]
    assert not list(tmp_path.iterdir())
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
