"""What has become of every job: read when everything is quiet."""

import asyncio
import fnmatch
import time
from collections import Counter
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Final

import orjson

from benchmarks.soak.faults import REFUSED
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.stage import Stage
from benchmarks.soak.workers import AFTER_THE_END

_FINAL: Final = ("finished", "error")
_SETTLED: Final = ("done", "failed")
_ORPHANS: Final = ("handovers", "handover_numbers", "job_events", "emails")
_ASK_EVERY: Final = 0.5

COPIES: Final = "two copies of it ran"
SENT_TWICE: Final = "sent twice under one number"
RETRIED: Final = "its worker fell silent, so the peer gave it to another"


@dataclass(kw_only=True)
class Verdict:
    """Jobs by name. What may not be, and figures for the table."""

    settled: bool
    lost: dict[str, str] = field(default_factory=dict)
    half_written: list[str] = field(default_factory=list)
    ran_twice: dict[str, str] = field(default_factory=dict)
    missing_mails: list[str] = field(default_factory=list)
    mails_expected: int = 0
    mails_sent: int = 0
    duplicate_mails: int = 0
    orphans: int = 0
    deleted: int = 0
    refused: set[str] = field(default_factory=set)
    wrongly_refused: list[str] = field(default_factory=list)
    ends_not_final: list[str] = field(default_factory=list)
    resends: int = 0
    put_off: int = 0
    log_errors: Counter[str] = field(default_factory=Counter)

    @property
    def broken(self) -> bool:
        """Whether a promise was broken: a job lost, run or ended twice, a mail missing."""
        wrongly_twice = [cause for cause in self.ran_twice.values() if cause != RETRIED]
        return bool(
            not self.settled
            or self.lost
            or self.half_written
            or wrongly_twice
            or self.wrongly_refused
            or self.ends_not_final
            or self.missing_mails
            or self.orphans
        )


async def settle(stage: Stage, seconds: float) -> bool:
    """Wait until nothing is under way any more; False if nothing moves on for so long."""
    # what a killed gateway left is swept after a minute, which need not be waited for
    aged = f"UPDATE jobs SET deleted_at = {stage.database.ago('61')} WHERE deleted_at IS NOT NULL"
    await asyncio.to_thread(stage.database.execute, aged)
    least, ends = float("inf"), 0.0
    while left := await _under_way(stage):
        if left < least:
            least, ends = left, time.monotonic() + seconds
        if time.monotonic() > ends:
            return False
        await asyncio.sleep(_ASK_EVERY)
    return True


async def _under_way(stage: Stage) -> int:
    """How much is still to be done, here and at the peer."""
    counted = await asyncio.to_thread(
        stage.database.fetch,
        f"SELECT (SELECT count(*) FROM jobs WHERE status NOT IN {_FINAL}"
        " OR deleted_at IS NOT NULL)"
        f" + (SELECT count(*) FROM handovers WHERE state NOT IN {_SETTLED})"
        f" + (SELECT count(*) FROM emails WHERE state NOT IN {_SETTLED})",
    )
    async with stage.session.get(f"{stage.peer_url}/_queue") as response:
        queue = await response.json()
    return int(counted[0][0]) + sum(entry["status"] not in _FINAL for entry in queue)


def audit(stage: Stage, *, settled: bool, retention: float = inf) -> Verdict:
    """Compare what was promised with what there is; not on an event loop's thread.

    `retention` is for how many seconds hand-overs are kept once they are settled.
    """
    for follower in stage.followers:
        follower.catch_up()
    verdict = Verdict(settled=settled)
    statuses = {
        str(name): str(status)
        for name, status in stage.database.fetch("SELECT job_name, status FROM jobs")
    }
    _look_for_refused(verdict, stage)
    _look_for_lost(verdict, stage, statuses)
    _look_for_second_runs(verdict, stage.ledger)
    _look_for_second_ends(verdict, stage)
    _look_for_mails(verdict, stage)
    _look_for_rests(verdict, stage, retention)
    _read_logs(verdict, stage)
    return verdict


def _look_for_lost(verdict: Verdict, stage: Stage, statuses: dict[str, str]) -> None:
    ledger = stage.ledger
    for name in ledger.accepted:
        status = statuses.get(name)
        if status is None:
            if name in ledger.perhaps_deleted:
                verdict.deleted += 1
            else:
                verdict.lost[name] = "not in the database"
        elif name in ledger.deleted:
            verdict.lost[name] = "deleted, but still there"
        elif status not in _FINAL:
            verdict.lost[name] = f"still {status}"
        elif name not in ledger.arrivals and name not in verdict.refused:
            verdict.lost[name] = "never arrived at the peer"
        elif status == "finished" and name not in ledger.runs:
            verdict.lost[name] = "finished without a run"


def _look_for_refused(verdict: Verdict, stage: Stage) -> None:
    """Jobs that ended by the peer's final word, which it had for some only."""
    refused = stage.database.fetch(
        "SELECT job_name FROM jobs JOIN handovers ON handovers.job_id = jobs.id"
        " WHERE handovers.state = 'failed'"
    )
    verdict.refused = {str(name) for (name,) in refused}
    verdict.wrongly_refused = [
        name for name in verdict.refused if not fnmatch.fnmatchcase(name, REFUSED)
    ]


def _look_for_second_ends(verdict: Verdict, stage: Stage) -> None:
    """What `finished` has closed stays closed, however often it is told."""
    found = stage.database.fetch(
        "SELECT job_name FROM jobs WHERE status = 'finished' AND ("
        f" runtime_details LIKE '%{AFTER_THE_END}%' OR date_finished IS NULL OR 1 <>"
        " (SELECT count(*) FROM job_events WHERE job_id = jobs.id"
        " AND job_events.status = 'finished'))"
    )
    verdict.ends_not_final = [str(name) for (name,) in found]


def _look_for_second_runs(verdict: Verdict, ledger: Ledger) -> None:
    for name, runs in ledger.runs.items():
        if len({run.number for run in runs}) > 1:
            verdict.ran_twice[name] = COPIES
        elif len({run.entry for run in runs}) > 1:
            verdict.ran_twice[name] = SENT_TWICE
        elif len(runs) > 1:
            verdict.ran_twice[name] = RETRIED


def _look_for_mails(verdict: Verdict, stage: Stage) -> None:
    """Every job that ended has one mail of how it ended."""
    sent = stage.ledger.mails
    ended: list[tuple[Any, ...]] = stage.database.fetch(
        "SELECT jobs.job_name, emails.custom_id FROM jobs LEFT JOIN emails"
        " ON emails.job_id = jobs.id AND emails.kind = jobs.status AND emails.state = 'done'"
        f" WHERE jobs.status IN {_FINAL}"
    )
    verdict.mails_expected = len(ended)
    verdict.mails_sent = sent.total()
    verdict.duplicate_mails = sum(count - 1 for count in sent.values())
    verdict.missing_mails = [str(name) for name, custom_id in ended if not sent[str(custom_id)]]


def _look_for_rests(verdict: Verdict, stage: Stage, retention: float) -> None:
    fetch = stage.database.fetch
    for table in _ORPHANS:
        (found,) = fetch(f"SELECT count(*) FROM {table} WHERE job_id NOT IN (SELECT id FROM jobs)")
        verdict.orphans += found[0]
    without = "SELECT job_name FROM jobs WHERE id NOT IN (SELECT job_id FROM handovers)"
    if isfinite(retention):  # those of older jobs may have been removed
        without += f" AND date_created > {stage.database.ago(str(retention))}"
    verdict.half_written = [str(name) for (name,) in fetch(without)]


def _read_logs(verdict: Verdict, stage: Stage) -> None:
    """Resends, what waited for the database, and what the services themselves did not expect."""
    for service in stage.services:
        for line in service.log.read_bytes().splitlines():
            try:
                entry = orjson.loads(line)
            except orjson.JSONDecodeError:
                verdict.log_errors[f"{service.name.partition('-')[0]}: no JSON"] += 1
                continue
            verdict.resends += entry.get("event") == "handover.renumbered"
            verdict.put_off += str(entry.get("event")).endswith(".postponed")
            if "exception" in entry:
                last = str(entry["exception"]).strip().splitlines()[-1]
                kind = service.name.partition("-")[0]
                verdict.log_errors[f"{kind}: {entry.get('event')}: {last}"] += 1
