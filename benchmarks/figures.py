"""What a benchmark finds: a figure, the floors beside it, and the ratio that is aimed at."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Self

_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value. `cpu` is processor time of the measured process per piece of work."""

    value: float
    unit: str = "/s"
    cpu: float | None = None
    cpu_unit: str = "µs"


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What the same machine did in the same run without the service.

    `target` and `aim` are ratios of the service's figure to this floor.
    """

    name: str
    figure: Figure
    target: float | None = None
    aim: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the report. `peak` is the process's largest memory in MiB."""

    group: str
    name: str
    figure: Figure
    floors: tuple[Floor, ...] = ()
    peak: float | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """All of it, with the ratios."""
        found = asdict(self)
        for shown, floor in zip(found["floors"], self.floors, strict=True):
            shown["ratio"] = ratio(self.figure, floor.figure)
            shown["cpu_ratio"] = cpu_ratio(self.figure, floor.figure)
        return found


def ratio(figure: Figure, floor: Figure) -> float | None:
    """How much of the floor's speed is reached; None where they do not compare."""
    if figure.unit != floor.unit or not floor.value or not figure.value:
        return None
    is_time = figure.unit == "ms"  # the shorter, the better
    return floor.value / figure.value if is_time else figure.value / floor.value


def cpu_ratio(figure: Figure, floor: Figure) -> float | None:
    """The floor's processor time over ours: 1 means that the service adds nothing."""
    if figure.cpu_unit != floor.cpu_unit or not figure.cpu or floor.cpu is None:
        return None
    return floor.cpu / figure.cpu


@dataclass(kw_only=True)
class Sample:
    """What one or more runs of a load add up to. Times in seconds."""

    count: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    kept: list[tuple[float, str]] = field(default_factory=list)

    def __iadd__(self, other: Self) -> Self:
        self.count += other.count
        self.seconds += other.seconds
        self.cpu_seconds += other.cpu_seconds
        self.latencies += other.latencies
        self.kept += other.kept
        return self

    def per_second(self) -> Figure:
        """Pieces of work per second, and microseconds of processor time for each."""
        return Figure(
            value=self.count / self.seconds if self.seconds else 0.0,
            cpu=self.cpu_seconds / self.count * 1e6 if self.count else None,
        )


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One large body. Times in seconds; `first` until the first byte of the answer's body."""

    size: int
    seconds: float
    cpu_seconds: float | None = None
    first: float = 0.0

    def figure(self) -> Figure:
        """MiB per second, and processor seconds per GiB."""
        gib = self.size / (1024 * _MIB)
        return Figure(
            value=self.size / _MIB / self.seconds,
            unit="MiB/s",
            cpu=None if self.cpu_seconds is None else self.cpu_seconds / gib,
            cpu_unit="s/GiB",
        )


def middle(transfers: Sequence[Transfer]) -> Transfer:
    """The transfer that took the median time, with the median processor time."""
    spent = [item.cpu_seconds for item in transfers if item.cpu_seconds is not None]
    return Transfer(
        size=transfers[0].size,
        seconds=median(item.seconds for item in transfers),
        cpu_seconds=median(spent) if spent else None,
        first=median(item.first for item in transfers),
    )


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of them lie, by the nearest rank; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
