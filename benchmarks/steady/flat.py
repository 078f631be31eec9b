"""Whether a figure stayed where it was: the line through the second half of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

Point = tuple[float, float]
"""A moment in seconds, and the value there."""


_MINUTE: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What the line may rise by from half time to the end: a part of the mean, or so much at
    least. With `floors` the line is that through the least value of each minute: what transfers
    take and give back within the minute is left out, what is kept for good is not."""

    part: float
    least: float
    floors: bool = False

    def __str__(self) -> str:
        return f"{self.part:.0%} or {self.least:g}"

    def line(self, points: Sequence[Point]) -> Sequence[Point]:
        """The points of the second half that the line goes through."""
        half = second_half(points)
        return floors(half, _MINUTE) if self.floors else half

    def allows(self, points: Sequence[Point]) -> bool:
        """Whether these points are flat in the second half; falling is."""
        half = self.line(points)
        mean = fmean(value for _, value in half) if half else 0.0
        return rise(half) <= max(self.part * mean, self.least)


MEMORY: Final = Limit(part=0.02, least=2.0, floors=True)
"""In MiB."""

HANDLES: Final = Limit(part=0.05, least=2, floors=True)
"""File handles; threads as well."""

ROWS: Final = Limit(part=0.35, least=40)
"""Rows of a table: users submit and delete by chance, so that they drift by a fifth within minutes.
A table from which nothing is removed grows by several times its mean in half an hour."""


def second_half(points: Sequence[Point]) -> list[Point]:
    """The points from half time on."""
    if not points:
        return []
    middle = (points[0][0] + points[-1][0]) / 2
    return [point for point in points if point[0] >= middle]


def floors(points: Sequence[Point], window: float) -> list[Point]:
    """The lowest point of every window of so many seconds."""
    lowest: dict[int, Point] = {}
    for point in points:
        place = int((point[0] - points[0][0]) // window)
        lowest[place] = min(lowest.get(place, point), point, key=lambda item: item[1])
    return list(lowest.values())


def slope(points: Sequence[Point]) -> float:
    """Rise per second of the line with the least squares; 0 where there is none."""
    if len(points) < 2:
        return 0.0
    at, mean = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = sum((x - at) ** 2 for x, _ in points)
    return sum((x - at) * (y - mean) for x, y in points) / spread if spread else 0.0


def rise(points: Sequence[Point]) -> float:
    """By how much that line rises from the first point to the last."""
    return slope(points) * (points[-1][0] - points[0][0]) if points else 0.0


def value_at(points: Sequence[Point], moment: float) -> float:
    """The value at the point nearest to a moment."""
    return min(points, key=lambda point: abs(point[0] - moment))[1]
