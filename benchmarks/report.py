"""The report: the machine, and a table per group of results."""

from collections.abc import Collection, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

from benchmarks.results import Baseline, Figure, Result, cpu_ratio, grouped, ratio

_COLUMNS: Final = (
    "work", "measured", "CPU each", "baseline", "ratio", "by CPU", "must", "aim", "peak memory",
)  # fmt: skip
_LEFT: Final = frozenset({0, 3})

_LEGEND: Final = (
    "CPU each: processor time of the measured process per request, job, file or GiB.",
    "ratio: measured over baseline; for times, baseline over measured.",
    "by CPU: the baseline's processor time over the measured one; a busy machine affects it less.",
    "must, aim: the ratio to reach, and the one to aim at.",
)


def render(facts: Sequence[tuple[str, str]], results: Sequence[Result]) -> str:
    """The machine, the tables, and the legend."""
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:<{width}}  {value}" for name, value in facts]
    for group, members in groupby(results, key=attrgetter("group")):
        rows = [row for result in members for row in _rows(result)]
        heads, *table = text_table(_COLUMNS, rows, _LEFT)
        lines += ["", group, "", heads, "-" * len(heads), *table]
    return "\n".join([*lines, "", *_LEGEND])


def _rows(result: Result) -> list[list[str]]:
    """A row for each baseline, and the note."""
    peak = "" if result.peak is None else f"{result.peak:.0f} MiB"
    head = [result.name, value_of(result.figure), cpu_of(result.figure)]
    first, *others = result.baselines or (None,)
    rows = [[*head, *_cells(result.figure, first), peak]]
    rows += [["", "", "", *_cells(result.figure, other), ""] for other in others]
    if result.note:
        rows.append([f"  {result.note}", *[""] * (len(_COLUMNS) - 1)])
    return rows


def _cells(figure: Figure, baseline: Baseline | None) -> list[str]:
    if baseline is None:
        return [""] * 5
    spent = cpu_of(baseline.figure)
    shown = f"{baseline.name} {value_of(baseline.figure)}" + (f", {spent}" if spent else "")
    ratios = (ratio(figure, baseline.figure), cpu_ratio(figure, baseline.figure))
    return [shown, *map(_share, (*ratios, baseline.must, baseline.aim))]


def value_of(figure: Figure) -> str:
    """`12 300/s`, `512 MiB/s`, `3.2 ms`."""
    text = grouped(figure.value, 0 if figure.value >= 100 else 1 if figure.value >= 10 else 2)
    return text + figure.unit if figure.unit.startswith("/") else f"{text} {figure.unit}"


def cpu_of(figure: Figure) -> str:
    """`85 µs`, `1.4 s/GiB`; empty if not measured."""
    if figure.cpu is None:
        return ""
    return f"{grouped(figure.cpu, 0 if figure.cpu >= 10 else 2)} {figure.cpu_unit}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def text_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)
) -> list[str]:
    """Lines of aligned columns; a row with only a first cell spans them."""
    table = [heads, *rows]
    widths = [
        max(map(len, column))
        for column in zip(*(row for row in table if any(row[1:])), strict=True)
    ]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
