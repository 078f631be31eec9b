"""The table at a soak's end."""

import math
from collections import Counter
from statistics import median

from benchmarks.soak.audit import RETRIED, Verdict
from benchmarks.soak.chaos import Chaos
from benchmarks.soak.ledger import Ledger

_SHOWN = 10


def render(title: str, ledger: Ledger, verdict: Verdict, chaos: Chaos) -> str:
    """All of it as text."""
    return "\n".join(
        [title, *_figures(ledger, verdict), "", *_recoveries(chaos), *_troubles(ledger, verdict)]
    )


def _figures(ledger: Ledger, verdict: Verdict) -> list[str]:
    copies = sum(map(len, ledger.arrivals.values()))
    causes = Counter(verdict.ran_twice.values())
    silent = causes.pop(RETRIED, 0)
    rows = [
        ("jobs submitted", f"{len(ledger.asked)}"),
        ("  answered 201 (or known to be there)", f"{len(ledger.accepted)}"),
        ("accepted by the peer, distinct", f"{len(ledger.arrivals)} (copies: {copies})"),
        ("sent again under a fresh number", f"{verdict.resends}"),
        ("  copies that the peer was told to drop", f"{ledger.dropped_copies}"),
        ("run", f"{len(ledger.runs)}"),
        ("run twice", f"{causes.total()}{_in_brackets(causes)}"),
        (f"  retried: {RETRIED}", f"{silent} (silences: {ledger.silences})"),
        ("lost", f"{len(verdict.lost)}"),
        ("job without its hand-over", f"{len(verdict.half_written)}"),
        ("deleted", f"{verdict.deleted}"),
        ("ended by the peer's refusal", f"{len(verdict.refused)}"),
        ("  of those, ones that it did not refuse", f"{len(verdict.wrongly_refused)}"),
        ("ended twice, or changed after the end", f"{len(verdict.ends_not_final)}"),
        ("orphan rows", f"{verdict.orphans}"),
        ("mails expected", f"{verdict.mails_expected}"),
        ("mails missing", f"{len(verdict.missing_mails)}"),
        ("mails sent, withdrawn jobs' included", f"{verdict.mails_sent}"),
        ("mails sent twice", f"{verdict.duplicate_mails}"),
        ("put off while the database was away", f"{verdict.put_off}"),
        ("settled in the quiet period", "yes" if verdict.settled else "NO"),
    ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _in_brackets(causes: Counter[str]) -> str:
    return (
        f" ({', '.join(f'{cause}: {count}' for cause, count in causes.items())})" if causes else ""
    )


def _recoveries(chaos: Chaos) -> list[str]:
    width = max(map(len, chaos.injected), default=0)
    lines = [f"{'fault':<{width}}  times  recovery p50, max (s)"]
    for name, times in sorted(chaos.injected.items()):
        found = chaos.recoveries.get(name, [])
        shown = f"{_seconds(median(found))}  {_seconds(max(found))}" if found else "-"
        lines.append(f"{name:<{width}}  {times:>5}  {shown}")
    return lines


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.2f}"


def _troubles(ledger: Ledger, verdict: Verdict) -> list[str]:
    """Names, for a search in the logs."""
    lines = ["", "answers to the user: " + ", ".join(_counts(ledger.answers))]
    named = {
        "lost": [f"{name} ({why})" for name, why in verdict.lost.items()],
        "without its hand-over": verdict.half_written,
        "run twice": [
            f"{name} ({why}: {ledger.runs[name]})"
            for name, why in verdict.ran_twice.items()
            if why != RETRIED
        ],
        "without its mail": verdict.missing_mails,
        "wrongly refused": verdict.wrongly_refused,
        "ended twice, or changed after the end": verdict.ends_not_final,
        "unexpected in the logs": _counts(verdict.log_errors),
    }
    for title, names in named.items():
        if names:
            more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"{title}: {'; '.join(names[:_SHOWN])}{more}")
    return lines


def _counts(found: Counter[str]) -> list[str]:
    return [f"{name} × {count}" for name, count in found.most_common()]
