"""What a run has found: figures in tables, and what is wrong."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from benchmarks.figures import percentile
from benchmarks.soak.audit import RETRIED, Verdict
from benchmarks.soak.ledger import Ledger
from benchmarks.steady import flat
from benchmarks.steady.requests import Kind
from benchmarks.steady.samples import TABLES, DatabaseSample, ProcessSample, TableSample, Watch
from benchmarks.steady.workers import UPDATES

T = TypeVar("T", ProcessSample, DatabaseSample, TableSample)

_JUDGED: Final[dict[str, tuple[flat.Limit, Callable[[ProcessSample], float]]]] = {
    "memory": (flat.MEMORY, lambda item: item.memory),
    "file handles": (flat.HANDLES, lambda item: item.handles),
    "threads": (flat.HANDLES, lambda item: item.threads),
}
_EARLY: Final = 300.0
_SHOWN: Final = 5
_HOUR: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that was seen; `judged` are the processes that have to stay flat, `missing_mails` the
    subjects of those that never came, `left_behind` how many parts of broken-off uploads there
    are."""

    watch: Watch
    judged: Sequence[str]
    kinds: Mapping[str, Kind]
    ledger: Ledger
    verdict: Verdict
    missing_mails: Sequence[str]
    left_behind: int


def troubles(found: Findings) -> list[str]:
    """What may not be, in sentences; empty: all is well."""
    wrong = [*_unflat(found)]
    for name, kind in found.kinds.items():
        if kind.faults:
            some = "; ".join(kind.faults[:_SHOWN])
            wrong.append(f"{name}: {len(kind.faults)} faults: {some}")
    if found.missing_mails:
        wrong.append(f"{len(found.missing_mails)} mails missing: {found.missing_mails[:_SHOWN]}")
    if found.left_behind:
        wrong.append(f"{found.left_behind} parts of uploads left behind")
    verdict = found.verdict
    if verdict.broken:
        wrong.append(
            f"settled: {verdict.settled}, lost: {verdict.lost}, run twice: {verdict.ran_twice},"
            f" without hand-over: {verdict.half_written}, without mail: {verdict.missing_mails},"
            f" orphan rows: {verdict.orphans}"
        )
    wrong += [f"in the logs: {line} × {count}" for line, count in verdict.log_errors.items()]
    return wrong


def _unflat(found: Findings) -> Iterable[str]:
    for name in found.judged:
        samples = found.watch.processes[name]
        for what, (limit, read) in _JUDGED.items():
            if not limit.allows(_points(samples, read)):
                yield f"{name}: {what} not flat (limit: {limit})"
    for table in TABLES:
        points = [(item.at, item.tables[table].rows) for item in found.watch.database]
        if not flat.ROWS.allows(points):
            yield f"{table}: rows not flat (limit: {flat.ROWS})"


def render(found: Findings) -> str:
    """The tables as text."""
    parts = [
        _processes(found.watch),
        _tables(found.watch),
        _requests(found.kinds),
        _jobs(found),
    ]
    wrong = troubles(found)
    parts.append(["not as it has to be:", *wrong] if wrong else ["all as it has to be"])
    return "\n\n".join("\n".join(lines) for lines in parts)


def _processes(watch: Watch) -> list[str]:
    heads = ["process", "MiB 5 min", "half", "end", "per hour"]
    heads += ["handles 5 min", "half", "end", "threads", "connections", "cpu", "lag p50, p99 (ms)"]
    lines = []
    for name, samples in watch.processes.items():
        first, last = samples[0], samples[-1]
        memory = _points(samples, lambda item: item.memory)
        handles = _points(samples, lambda item: item.handles)
        used = (last.cpu - first.cpu) / max(last.at - first.at, 1e-9)
        lines.append(
            [
                name,
                *(f"{value:.1f}" for value in _moments(memory)),
                f"{flat.slope(flat.MEMORY.line(memory)) * _HOUR:+.1f}",
                *(f"{value:.0f}" for value in _moments(handles)),
                f"{last.threads}",
                f"{max(item.connections for item in samples)}",
                f"{used:.1%}",
                ", ".join(f"≤ {1000 * bound:g}" for bound in _lags(first, last)),
            ]
        )
    return _aligned(heads, lines)


def _lags(first: ProcessSample, last: ProcessSample) -> list[float]:
    """The bounds under which half and 99 % of the delays between two samples were."""
    counts = {bound: count - first.lag.get(bound, 0.0) for bound, count in last.lag.items()}
    total = max(counts.values(), default=0.0)
    return [
        min(bound for bound, count in counts.items() if count >= part * total)
        for part in (0.5, 0.99)
        if total
    ]


def _tables(watch: Watch) -> list[str]:
    samples = watch.database
    heads = ["table", "rows 5 min", "half", "end", "per hour", "dead, most"]
    heads += ["MiB 5 min", "half", "end"]
    lines = []
    for table in TABLES:
        of = [item.tables[table] for item in samples]
        rows = _points(of, lambda item: item.rows)
        lines.append(
            [
                table,
                *(f"{value:.0f}" for value in _moments(rows)),
                f"{flat.slope(flat.ROWS.line(rows)) * _HOUR:+.0f}",
                f"{max(item.dead for item in of)}",
                *(f"{value:.2f}" for value in _moments(_points(of, lambda item: item.size))),
            ]
        )
    cpu = watch.server_cpu / max(samples[-1].at - samples[0].at, 1e-9)
    sizes = _moments(_points(samples, lambda item: item.size))
    backlog = [item.backlog for item in samples]
    connections = [item.connections for item in samples]
    summary = (
        f"database: {', '.join(f'{size:.1f}' for size in sizes)} MiB;"
        f" connections: at most {max(connections)}, {connections[-1]} at the end;"
        f" unsettled: at most {max(backlog)}, {backlog[-1]} at the end;"
        f" cpu of its server: {cpu:.1%}"
    )
    return [*_aligned(heads, lines), summary]


def _requests(kinds: Mapping[str, Kind]) -> list[str]:
    lines = [
        [
            name,
            f"{len(kind.latencies)}",
            f"{len(kind.faults)}",
            f"{1000 * percentile(kind.latencies, 0.5):.1f}",
            f"{1000 * percentile(kind.latencies, 0.99):.1f}",
        ]
        for name, kind in sorted(kinds.items())
    ]
    count = sum(len(kind.latencies) for kind in kinds.values())
    lines.append(["all", f"{count}", f"{sum(len(kind.faults) for kind in kinds.values())}", "", ""])
    return _aligned(["request", "count", "failed", "p50 (ms)", "p99 (ms)"], lines)


def _jobs(found: Findings) -> list[str]:
    ledger, verdict = found.ledger, found.verdict
    twice = [cause for cause in verdict.ran_twice.values() if cause != RETRIED]
    rows = {
        "jobs submitted": len(ledger.accepted),
        "arrived at the peer": len(ledger.arrivals),
        "run": len(ledger.runs),
        "status updates by workers": ledger.answers[UPDATES],
        "run twice": len(twice),
        "lost": len(verdict.lost),
        "deleted by their users": len(ledger.deleted),
        "copies that the peer was told to drop": ledger.dropped_copies,
        "mails": ledger.mails.total(),
        "mails missing": len(found.missing_mails) + len(verdict.missing_mails),
        "mails sent twice": verdict.duplicate_mails,
        "parts of uploads left behind": found.left_behind,
    }
    width = max(map(len, rows))
    return [f"{name:<{width}}  {count}" for name, count in rows.items()]


def _points(samples: Sequence[T], read: Callable[[T], float]) -> list[flat.Point]:
    return [(item.at, read(item)) for item in samples]


def _moments(points: Sequence[flat.Point]) -> list[float]:
    """At five minutes, at half time, at the end."""
    end = points[-1][0]
    return [flat.value_at(points, moment) for moment in (min(_EARLY, end / 2), end / 2, end)]


def _aligned(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (heads, *lines)
    ]
