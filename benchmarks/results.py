"""What a benchmark produces: a figure, the baselines beside it, and the ratios to reach."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Self

_MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """A measured value; `cpu` is the measured process's processor time per item."""

    value: float
    unit: str = "/s"
    cpu: float | None = None
    cpu_unit: str = "µs"


@dataclass(frozen=True)
class Baseline:
    """The same work in the same run without the service.

    `must` and `aim` are ratios of the service's figure to this one.
    """

    name: str
    figure: Figure
    must: float | None = None
    aim: float | None = None


@dataclass(frozen=True)
class Result:
    """A line of the report; `peak` is the process's peak memory in MiB."""

    group: str
    name: str
    figure: Figure
    baselines: tuple[Baseline, ...] = ()
    peak: float | None = None
    note: str = ""


def ratio(figure: Figure, baseline: Figure) -> float | None:
    """The share of the baseline's speed that is reached; None for different units."""
    if figure.unit != baseline.unit or not baseline.value or not figure.value:
        return None
    is_time = figure.unit == "ms"
    return baseline.value / figure.value if is_time else figure.value / baseline.value


def cpu_ratio(figure: Figure, baseline: Figure) -> float | None:
    """The baseline's processor time over the service's; 1 if the service adds nothing."""
    if figure.cpu_unit != baseline.cpu_unit or not figure.cpu or baseline.cpu is None:
        return None
    return baseline.cpu / figure.cpu


@dataclass(kw_only=True)
class Sample:
    """The sum of one or more runs of a load; times in seconds.

    `kept` are response bodies with the time (monotonic) at which each was complete.
    """

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

    def per_second(self, unit: str = "/s") -> Figure:
        """Items per second, and microseconds of processor time per item."""
        rate = self.count / self.seconds if self.seconds else 0.0
        return Figure(rate, unit, self.cpu_seconds / max(1, self.count) * 1e6 or None)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A large body; times in seconds, `first_byte` from the start of the request."""

    size: int
    seconds: float
    cpu_seconds: float = 0.0
    first_byte: float = 0.0

    def figure(self) -> Figure:
        """MiB per second, and processor seconds per GiB."""
        mib = self.size / _MIB
        return Figure(mib / self.seconds, "MiB/s", self.cpu_seconds / mib * 1024 or None, "s/GiB")


def median_transfer(transfers: Sequence[Transfer]) -> Transfer:
    """The median time, processor time and first byte of transfers of one size."""
    return Transfer(
        size=transfers[0].size,
        seconds=median(item.seconds for item in transfers),
        cpu_seconds=median(item.cpu_seconds for item in transfers),
        first_byte=median(item.first_byte for item in transfers),
    )


def percentile(values: Sequence[float], part: float) -> float:
    """The nearest-rank percentile for `part` from 0 to 1; 0 without values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def milliseconds(seconds: Sequence[float], part: float) -> Figure:
    """A percentile as a figure."""
    return Figure(1000 * percentile(seconds, part), "ms")


def grouped(number: float, decimals: int = 0) -> str:
    """A number with its digits in groups of three: `20 000`."""
    return f"{number:,.{decimals}f}".replace(",", " ")
