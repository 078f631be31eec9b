"""Figures, ratios, and how they are shown."""

import pytest

from benchmarks import targets
from benchmarks.figures import (
    Figure,
    Floor,
    Result,
    Sample,
    Transfer,
    cpu_ratio,
    middle,
    percentile,
    ratio,
)
from benchmarks.report import render, value_of
from devtools import proc

RESULT = Result(
    group="Requests",
    name="GET /",
    figure=Figure(value=8_000, cpu=100.0),
    floors=(
        Floor(name="bare handler", figure=Figure(value=16_000, cpu=50.0), target=0.51, aim=0.8),
        Floor(name="disk", figure=Figure(value=10, unit="MiB/s")),
    ),
    peak=99.6,
    note="a note that is longer than any of the columns above it could ever be",
)


def test_samples_add_up() -> None:
    sample = Sample()
    sample += Sample(count=10, seconds=1.0, cpu_seconds=0.5, latencies=[1.0])
    sample += Sample(count=30, seconds=1.0, cpu_seconds=0.5, latencies=[2.0])
    assert sample.per_second() == Figure(value=20.0, cpu=25_000.0)
    assert sample.latencies == [1.0, 2.0]


def test_a_transfer_is_told_per_mib_and_per_gib() -> None:
    moved = Transfer(size=512 << 20, seconds=2.0, cpu_seconds=1.0)
    assert moved.figure() == Figure(value=256.0, unit="MiB/s", cpu=2.0, cpu_unit="s/GiB")


def test_the_middle_of_transfers_is_their_median() -> None:
    moved = [Transfer(size=1, seconds=s, cpu_seconds=c) for s, c in ((1, 9), (5, 2), (3, 4))]
    assert middle(moved) == Transfer(size=1, seconds=3, cpu_seconds=4)


def test_a_percentile_is_one_of_the_values() -> None:
    assert [percentile([3.0, 1.0, 2.0], part) for part in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
    assert percentile([], 0.5) == 0.0


def test_ratios_compare_only_what_has_one_unit() -> None:
    figure, (bare, disk) = RESULT.figure, RESULT.floors
    assert ratio(figure, bare.figure) == cpu_ratio(figure, bare.figure) == 0.5
    assert ratio(figure, disk.figure) is None


def test_a_time_that_is_twice_the_floors_is_half_of_the_floor() -> None:
    assert ratio(Figure(value=4.0, unit="ms"), Figure(value=2.0, unit="ms")) == 0.5


@pytest.mark.parametrize(
    ("figure", "shown"),
    [
        (Figure(value=12_345.6), "12 346/s"),
        (Figure(value=12.34, unit="MiB/s"), "12.3 MiB/s"),
        (Figure(value=0.5, unit="ms"), "0.50 ms"),
        (Figure(value=700, unit="files/s"), "700 files/s"),
    ],
)
def test_values_are_shown_with_their_unit(figure: Figure, shown: str) -> None:
    assert value_of(figure) == shown


def test_text_is_aligned() -> None:
    lines = render([("cores", "2"), ("system", "Linux")], [RESULT]).splitlines()
    assert lines[:2] == ["cores   2", "system  Linux"]
    header, rule, row, second, note = lines[lines.index("Requests") + 2 :][:5]
    assert row.startswith("GET /  ")
    assert row.split("  ")[-1] == "100 MiB"
    assert header.index("floor") == row.index("bare handler") == second.index("disk")
    assert len(header) == len(rule) == len(row)
    assert note == f"  {RESULT.note}"


def test_markdown_has_as_many_cells_in_each_row() -> None:
    text = render([("cores", "2")], [RESULT], markdown=True)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 5
    assert {line.count("|") for line in table} == {10}
    assert "| GET / | 8 000/s | 100 µs | bare handler 16 000/s, 50 µs | 0.50 | 0.50 |" in text


def test_json_holds_the_ratios() -> None:
    found = RESULT.as_json()
    assert found["figure"]["value"] == 8_000
    assert [floor["ratio"] for floor in found["floors"]] == [0.5, None]


def test_targets_are_ratios_to_the_floor_and_lower_on_sqlite() -> None:
    target = targets.of_requests("job")
    assert target.must == pytest.approx(3_600 / 19_600)
    assert target.aim == pytest.approx(6_000 / 19_600)
    on_sqlite = targets.of_requests("job", sqlite=True)
    assert on_sqlite.must == pytest.approx(1_200 / 19_600)
    assert targets.of_transfer("upload").must == pytest.approx(500 / 685)


def test_processor_time_is_read_whatever_the_process_is_called() -> None:
    numbers = " ".join(map(str, range(4, 53)))
    assert proc.parse_stat(f"17 (a) (b c) S {numbers}") == pytest.approx(
        (14 + 15) / proc.parse_stat.__globals__["_TICKS"]
    )


def test_the_peak_of_memory_is_read_in_mib() -> None:
    assert proc.parse_peak("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n") == 2.0
    assert proc.parse_peak("Name:\tkernel thread\n") is None
