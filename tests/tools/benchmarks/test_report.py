"""Figures, ratios, targets, and the report."""

import pytest

from benchmarks.report import render, value_of
from benchmarks.results import (
    Baseline,
    Figure,
    Result,
    Sample,
    Transfer,
    cpu_ratio,
    median_transfer,
    percentile,
    ratio,
)
from devtools import proc

RESULT = Result(
    "Requests",
    "GET /",
    Figure(8_000, cpu=100.0),
    (
        Baseline("bare handler", Figure(16_000, cpu=50.0), must=0.51, aim=0.8),
        Baseline("disk", Figure(10, "MiB/s")),
    ),
    peak=99.6,
    note="a note that is longer than any of the columns above it could ever be",
)


def test_samples_add_up() -> None:
    sample = Sample()
    sample += Sample(count=10, seconds=1.0, cpu_seconds=0.5, latencies=[1.0])
    sample += Sample(count=30, seconds=1.0, cpu_seconds=0.5, latencies=[2.0])
    assert sample.per_second() == Figure(20.0, cpu=25_000.0)
    assert sample.latencies == [1.0, 2.0]


def test_transfers_are_summed_up_by_medians() -> None:
    moved = [
        Transfer(size=512 << 20, seconds=seconds, cpu_seconds=cpu)
        for seconds, cpu in ((1.0, 9.0), (5.0, 1.0), (2.0, 1.0))
    ]
    assert median_transfer(moved).figure() == Figure(256.0, "MiB/s", 2.0, "s/GiB")


def test_a_percentile_is_one_of_the_values() -> None:
    assert [percentile([3.0, 1.0, 2.0], part) for part in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
    assert percentile([], 0.5) == 0.0


def test_ratios_compare_only_equal_units() -> None:
    figure, (bare, disk) = RESULT.figure, RESULT.baselines
    assert ratio(figure, bare.figure) == cpu_ratio(figure, bare.figure) == 0.5
    assert ratio(figure, disk.figure) is None
    assert ratio(Figure(4.0, "ms"), Figure(2.0, "ms")) == 0.5  # twice the time, half the speed


@pytest.mark.parametrize(
    ("figure", "shown"),
    [
        (Figure(12_345.6), "12 346/s"),
        (Figure(12.34, "MiB/s"), "12.3 MiB/s"),
        (Figure(0.5, "ms"), "0.50 ms"),
        (Figure(700, "files/s"), "700 files/s"),
    ],
)
def test_values_have_their_unit(figure: Figure, shown: str) -> None:
    assert value_of(figure) == shown


def test_the_report_is_aligned() -> None:
    lines = render([("cores", "2"), ("system", "Linux")], [RESULT]).splitlines()
    assert lines[:2] == ["cores   2", "system  Linux"]
    header, rule, row, second, note = lines[lines.index("Requests") + 2 :][:5]
    assert row.startswith("GET /")
    assert row.split()[-5:] == ["0.50", "0.51", "0.80", "100", "MiB"]
    assert header.index("baseline") == row.index("bare handler") == second.index("disk")
    assert len(header) == len(rule) == len(row)
    assert note == f"  {RESULT.note}"


def test_processor_time_is_read_despite_blanks_in_the_name() -> None:
    numbers = " ".join(map(str, range(4, 53)))
    assert proc.parse_stat(f"17 (a) (b c) S {numbers}") == pytest.approx(
        (14 + 15) / proc.parse_stat.__globals__["_TICKS"]
    )


def test_the_peak_of_memory_is_read_in_mib() -> None:
    assert proc.parse_peak("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n") == 2.0
    assert proc.parse_peak("Name:\tkernel thread\n") is None
