"""The report: aligned text for terminals, or Markdown tables for a README."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

from benchmarks.figures import Figure, Floor, Result, cpu_ratio, ratio

_COLUMNS: Final = (
    "work", "measured", "CPU each", "floor", "of floor", "by CPU", "must", "aim", "peak memory",
)  # fmt: skip
_TEXT_COLUMNS: Final = frozenset({0, 3})

_LEGEND: Final = (
    "CPU each: processor time of the measured process per request, job or GiB.",
    "of floor: measured over the floor's value; of times the floor's over ours.",
    "by CPU: the floor's processor time over ours, which a busy machine disturbs far less.",
    "must, aim: the ratio to the floor that is to be reached, and that is hoped for.",
)


def render(
    facts: Sequence[tuple[str, str]], results: Sequence[Result], *, markdown: bool = False
) -> str:
    """The machine, then one table per group, then what the columns mean."""
    lines = _facts(facts, markdown=markdown)
    for group, members in groupby(results, key=attrgetter("group")):
        rows = [row for result in members for row in _rows(result)]
        lines += ["", f"### {group}" if markdown else group, ""]
        lines += _markdown_table(rows) if markdown else _text_table(rows)
    lines.append("")
    lines += [f"- {line}" for line in _LEGEND] if markdown else _LEGEND
    return "\n".join(lines)


def _facts(facts: Sequence[tuple[str, str]], *, markdown: bool) -> list[str]:
    if markdown:
        return [f"- {name}: {value}" for name, value in facts]
    width = max(len(name) for name, _ in facts)
    return [f"{name:<{width}}  {value}" for name, value in facts]


def _rows(result: Result) -> list[tuple[str, ...]]:
    """One row, one more for each further floor, and the note."""
    peak = "" if result.peak is None else f"{result.peak:.0f} MiB"
    head = (result.name, value_of(result.figure), cpu_of(result.figure))
    first, *others = result.floors or (None,)
    rows = [(*head, *_floor_cells(result.figure, first), peak)]
    rows += [("", "", "", *_floor_cells(result.figure, floor), "") for floor in others]
    if result.note:
        rows.append((f"  {result.note}", *[""] * (len(_COLUMNS) - 1)))
    return rows


def _floor_cells(figure: Figure, floor: Floor | None) -> tuple[str, ...]:
    if floor is None:
        return ("",) * 5
    spent = cpu_of(floor.figure)
    shown = f"{floor.name} {value_of(floor.figure)}" + (f", {spent}" if spent else "")
    return (
        shown,
        _share(ratio(figure, floor.figure)),
        _share(cpu_ratio(figure, floor.figure)),
        _share(floor.target),
        _share(floor.aim),
    )


def value_of(figure: Figure) -> str:
    """`12 300/s`, `512 MiB/s`, `3.2 ms`."""
    value = figure.value
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    text = f"{value:,.{digits}f}".replace(",", " ")
    return text + figure.unit if figure.unit.startswith("/") else f"{text} {figure.unit}"


def cpu_of(figure: Figure) -> str:
    """`85 µs`, `1.4 s/GiB`; empty where it was not measured."""
    if figure.cpu is None:
        return ""
    digits = 0 if figure.cpu >= 10 else 2
    return f"{figure.cpu:,.{digits}f} {figure.cpu_unit}".replace(",", " ")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _text_table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    table = [_COLUMNS, *rows]
    plain = [row for row in table if any(row[1:])]  # notes run over the columns
    widths = [max(map(len, column)) for column in zip(*plain, strict=True)]
    lines = []
    for row in table:
        cells = [
            f"{cell:<{width}}" if index in _TEXT_COLUMNS else f"{cell:>{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def _markdown_table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    rule = ["---" if index in _TEXT_COLUMNS else "--:" for index in range(len(_COLUMNS))]
    return [f"| {' | '.join(cell.strip() for cell in row)} |" for row in (_COLUMNS, rule, *rows)]
