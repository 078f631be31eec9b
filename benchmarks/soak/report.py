"""The report of a soak: figures in tables, and everything that is wrong."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.report import text_table
from benchmarks.results import percentile
from benchmarks.soak.audit import Audit
from benchmarks.soak.chaos import RECOVERY_TIMEOUT, Chaos
from benchmarks.soak.flatness import LIMITS, Point, slope, value_at
from benchmarks.soak.ledger import Ledger, RequestKind
from benchmarks.soak.samples import Sampler

Series = Mapping[str, Mapping[str, Sequence[Point]]]

_EARLY: Final = 300.0
_SHOWN: Final = 10
_HOUR: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The audit and the ledger; `chaos` of a run with faults, `sampler` of one without."""

    title: str
    audit: Audit
    ledger: Ledger
    chaos: Chaos | None = None
    sampler: Sampler | None = None


def problems(found: Findings) -> list[str]:
    """Everything that is wrong, in words; empty if all is well."""
    audit, ledger = found.audit, found.ledger
    named: dict[str, Iterable[str]] = {
        "lost": (f"{name} ({why})" for name, why in audit.lost.items()),
        "run twice": (f"{name} ({why}: {ledger.runs[name]})" for name, why in audit.twice.items()),
        "without a hand-over": audit.without_handover,
        "wrongly refused": audit.wrongly_refused,
        "changed after the end": audit.changed_after_end,
        "not cancelled": audit.not_cancelled,
        "keys": audit.wrong_keys,
        "events": audit.wrong_streams,
        "without a mail": audit.missing_mails,
        "mails sent twice": audit.duplicate_mails,
        "orphan rows of": audit.orphans,
        **{f"wrong answers to {name}": kind.wrong for name, kind in ledger.requests.items()},
    }
    if not audit.settled:
        named["not settled"] = ["something was still under way at the end"]
    if found.chaos:
        named[f"not recovered within {RECOVERY_TIMEOUT:g} s"] = [
            name for name, seconds in found.chaos.recoveries.items() if math.inf in seconds
        ]
    if found.sampler:
        named["not flat"] = [*_rising(found.sampler.processes), *_rising(found.sampler.tables)]
        named["in the logs"] = _counts(audit.log_errors)
        named["left behind"] = audit.staged
    return [_some(title, names) for title, some in named.items() if (names := list(some))]


def _some(title: str, names: Sequence[str]) -> str:
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{title}: {'; '.join(names[:_SHOWN])}{more}"


def _counts(found: Counter[str]) -> list[str]:
    return [f"{name} × {count}" for name, count in found.most_common()]


def _rising(series: Series) -> Iterable[str]:
    for name, measures in series.items():
        for measure, points in measures.items():
            if measure in LIMITS and not LIMITS[measure].allows(points):
                yield f"{name}: {measure}"


def render(found: Findings) -> str:
    """The tables as text, then the problems."""
    parts = [[found.title]]
    if found.sampler:
        parts += [_series_table("process at 5 min, half time, end", found.sampler.processes)]
        parts += [_series_table("table at 5 min, half time, end", found.sampler.tables)]
    parts += [_requests(found.ledger.requests), _jobs(found.audit, found.ledger)]
    if found.chaos:
        parts.append(_recoveries(found.chaos))
        if found.audit.log_errors:  # expected with faults
            parts.append([f"in the logs: {line}" for line in _counts(found.audit.log_errors)])
    wrong = problems(found)
    parts.append(["WRONG:", *wrong] if wrong else ["nothing is wrong"])
    return "\n\n".join("\n".join(lines) for lines in parts)


def _series_table(what: str, series: Series) -> list[str]:
    """The values at five minutes, half time and the end, and the rise per hour."""
    heads = list(dict.fromkeys(measure for measures in series.values() for measure in measures))
    rows = [[name, *(_cell(head, of[head]) for head in heads)] for name, of in series.items()]
    return text_table([what, *heads], rows)


def _cell(measure: str, points: Sequence[Point]) -> str:
    end = points[-1][0]
    values = [value_at(points, moment) for moment in (min(_EARLY, end / 2), end / 2, end)]
    shown = ", ".join(f"{value:.1f}".removesuffix(".0") for value in values)
    if measure not in LIMITS:
        return shown
    return f"{shown} ({slope(LIMITS[measure].line(points)) * _HOUR:+.0f}/h)"


def _requests(kinds: Mapping[str, RequestKind]) -> list[str]:
    lines = [
        [name, str(len(kind.latencies)), str(len(kind.wrong)), str(kind.repeated)]
        + [f"{1000 * percentile(kind.latencies, part):.1f}" for part in (0.5, 0.99)]
        for name, kind in sorted(kinds.items())
    ]
    totals = (sum(int(line[place]) for line in lines) for place in (1, 2, 3))
    lines.append(["all", *map(str, totals), "", ""])
    return text_table(["request", "count", "wrong", "repeated", "p50 (ms)", "p99 (ms)"], lines)


def _jobs(audit: Audit, ledger: Ledger) -> list[str]:
    copies = sum(map(len, ledger.arrivals.values()))
    events = sum(len(stream.events) for stream in ledger.streams.values())
    connections = sum(stream.connections for stream in ledger.streams.values())
    answers = sum(len(keyed.bodies) for keyed in ledger.keyed.values())
    rows: dict[str, object] = {
        "jobs submitted": len(ledger.requested),
        "accepted": len(ledger.accepted),
        "arrived at the peer": f"{len(ledger.arrivals)} (copies: {copies})",
        "sent again under a new number": audit.resends,
        "copies that the peer dropped": ledger.dropped_copies,
        "run": f"{len(ledger.runs)} (status updates: {ledger.reports})",
        "run again after a stall": f"{audit.retried} (stalls: {ledger.stalled})",
        "run twice": len(audit.twice),
        "lost": len(audit.lost),
        "refused by the peer": f"{len(audit.refused)} (wrongly: {len(audit.wrongly_refused)})",
        "changed after the end": len(audit.changed_after_end),
        "deleted by their users": audit.deleted,
        "cancelled by their users": f"{len(ledger.cancelled)} (not: {len(audit.not_cancelled)})",
        "idempotency keys": f"{len(ledger.keyed)} (answers: {answers})",
        "events that users followed": f"{events} (connections: {connections})",
        "mails": f"{ledger.mails.total()} (of jobs that exist: {audit.mails_expected})",
        "mails missing": len(audit.missing_mails),
        "mails sent twice": len(audit.duplicate_mails),
        "postponed without the database": audit.postponed,
    }
    width = max(map(len, rows))
    return [f"{name:<{width}}  {value}" for name, value in rows.items()]


def _recoveries(chaos: Chaos) -> list[str]:
    lines = []
    for name, times in sorted(chaos.injected.items()):
        found = chaos.recoveries.get(name, [])
        shown = [f"{value:.2f}" for value in (median(found), max(found))] if found else ["", ""]
        lines.append([name, str(times), *shown])
    return text_table(["fault", "times", "recovery p50 (s)", "max"], lines)
