"""Whether a series of samples is flat: the least-squares line through its second half."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

Point = tuple[float, float]
"""A time in seconds, and the value then."""


@dataclass(frozen=True)
class Limit:
    """By how much the line may rise: a part of the mean, or `least` where that is more.

    With `minima` it is the line through the minimum of each minute, which leaves out what
    transfers allocate and release.
    """

    part: float
    least: float
    minima: bool = False

    def line(self, points: Sequence[Point]) -> Sequence[Point]:
        """The points of the second half that count."""
        half = [point for point in points if point[0] >= (points[0][0] + points[-1][0]) / 2]
        if not self.minima:
            return half
        lowest: dict[int, Point] = {}
        for point in half:
            minute = int(point[0] - half[0][0]) // 60
            lowest[minute] = min(lowest.get(minute, point), point, key=lambda item: item[1])
        return list(lowest.values())

    def allows(self, points: Sequence[Point]) -> bool:
        """Whether the second half is flat or falling."""
        line = self.line(points)
        rise = slope(line) * (line[-1][0] - line[0][0])
        return rise <= max(self.part * fmean(value for _, value in line), self.least)


LIMITS: Final = {
    "memory": Limit(0.02, 2.0, minima=True),  # MiB
    "file handles": Limit(0.05, 2, minima=True),
    "threads": Limit(0.05, 2, minima=True),
    # drifts by a fifth within minutes, since users act at random; a table from which nothing is
    # deleted grows by several times its mean in half an hour
    "rows": Limit(0.35, 40),
}


def slope(points: Sequence[Point]) -> float:
    """The rise per second of the least-squares line; 0 for fewer than two points."""
    if len(points) < 2:
        return 0.0
    at, mean = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = sum((x - at) ** 2 for x, _ in points)
    return sum((x - at) * (y - mean) for x, y in points) / spread if spread else 0.0


def value_at(points: Sequence[Point], moment: float) -> float:
    """The value of the nearest point in time."""
    return min(points, key=lambda point: abs(point[0] - moment))[1]
