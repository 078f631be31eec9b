"""What became of every job, mail and file, once nothing is under way."""

import asyncio
import fnmatch
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.soak.faults import REFUSED
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.stage import Stage
from benchmarks.soak.workers import AFTER_THE_END
from common.storage.paths import RESERVED_USER_NAME
from devtools.database import RawDatabase

_FINAL: Final = ("finished", "error")
_SETTLED: Final = ("done", "failed", "dropped")
_DEPENDENT: Final = ("handovers", "handover_numbers", "job_events", "emails")
_POLL: Final = 0.5
_STREAMS_LATE: Final = 20.0
_SWEPT_AFTER: Final = "61"
"""Seconds after which a daemon completes a deletion that a killed gateway began."""


@dataclass(kw_only=True)
class Audit:
    """Broken promises, by the names of the jobs; then figures for the report."""

    settled: bool
    lost: dict[str, str] = field(default_factory=dict)
    twice: dict[str, str] = field(default_factory=dict)
    without_handover: list[str] = field(default_factory=list)
    wrongly_refused: list[str] = field(default_factory=list)
    changed_after_end: list[str] = field(default_factory=list)
    not_cancelled: list[str] = field(default_factory=list)
    wrong_keys: list[str] = field(default_factory=list)
    wrong_streams: list[str] = field(default_factory=list)
    missing_mails: list[str] = field(default_factory=list)
    duplicate_mails: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    staged: list[str] = field(default_factory=list)
    log_errors: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    mails_expected: int = 0
    deleted: int = 0
    retried: int = 0
    resends: int = 0
    postponed: int = 0


async def settle(stage: Stage, timeout: float) -> bool:
    """Wait until nothing is under way; False after `timeout` seconds without progress."""
    swept = stage.database.ago(_SWEPT_AFTER)
    aged = f"UPDATE jobs SET deleted_at = {swept} WHERE deleted_at IS NOT NULL"
    await asyncio.to_thread(stage.database.execute, aged)
    least, give_up = inf, 0.0
    while left := await _under_way(stage):
        if left < least:
            least, give_up = left, time.monotonic() + timeout
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(_POLL)
    return True


async def catch_up(stage: Stage) -> None:
    """Wait until the users' streams have what is recorded, for a while."""
    end = time.monotonic() + _STREAMS_LATE
    while time.monotonic() < end:
        if not await asyncio.to_thread(_wrong_streams, stage):
            return
        await asyncio.sleep(_POLL)


def _wrong_streams(stage: Stage) -> list[str]:
    """What streams lack of the events of existing jobs, and their other faults."""
    recorded: dict[str, set[int]] = defaultdict(set)
    for user, number in stage.database.fetch(
        "SELECT jobs.user_id, job_events.id FROM job_events JOIN jobs ON jobs.id = job_id"
        " WHERE deleted_at IS NULL AND type NOT IN ('reported', 'deleted')"
    ):
        recorded[str(user)].add(int(number))
    found = []
    for user, stream in stage.ledger.streams.items():
        lacking = recorded[user] - {event["id"] for event in stream.events}
        found += [f"{user} lacks event {number}" for number in sorted(lacking)]
        found += [f"{user}: {fault}" for fault in stream.faults]
    return found


async def _under_way(stage: Stage) -> int:
    """The number of unfinished jobs, hand-overs and mails, here and at the peer."""
    ((count,),) = await asyncio.to_thread(
        stage.database.fetch,
        "SELECT (SELECT count(*) FROM jobs"
        f" WHERE status NOT IN {_FINAL} OR deleted_at IS NOT NULL)"
        f" + (SELECT count(*) FROM handovers WHERE state NOT IN {_SETTLED})"
        f" + (SELECT count(*) FROM emails WHERE state NOT IN {_SETTLED})",
    )
    async with stage.session.get(f"{stage.peer.url}/_queue") as response:
        queue = await response.json()
    return int(count) + sum(entry["status"] not in _FINAL for entry in queue)


def examine(stage: Stage, *, settled: bool) -> Audit:
    """Compare the ledger with the database, the mails, the files and the logs; blocks."""
    for follower in stage.followers:
        follower.catch_up()
    audit, database, ledger = Audit(settled=settled), stage.database, stage.ledger
    _audit_jobs(audit, database, ledger)
    _audit_runs(audit, ledger)
    _audit_mails(audit, database, ledger)
    _audit_rows(audit, database, stage.profile.retention)
    staging = stage.folder / "user_data" / RESERVED_USER_NAME
    audit.staged = [path.name for path in staging.glob("*")]
    audit.wrong_keys = wrong_keys(database, ledger)
    audit.wrong_streams = _wrong_streams(stage)
    _read_logs(audit, stage.folder)
    return audit


def _names(database: RawDatabase, statement: str) -> list[str]:
    return [str(name) for (name,) in database.fetch(statement)]


def _audit_jobs(audit: Audit, database: RawDatabase, ledger: Ledger) -> None:
    failed = "SELECT job_id FROM handovers WHERE state = 'failed'"
    audit.refused = _names(database, f"SELECT job_name FROM jobs WHERE id IN ({failed})")
    audit.wrongly_refused = [
        name for name in audit.refused if not fnmatch.fnmatchcase(name, REFUSED)
    ]
    statuses = dict(database.fetch("SELECT job_name, status FROM jobs"))
    cancelled = "SELECT job_name FROM jobs WHERE cancelled_at IS NOT NULL AND status = 'error'"
    audit.not_cancelled = sorted(
        (ledger.cancelled & statuses.keys()) - set(_names(database, cancelled))
    )
    for name in ledger.accepted:
        status = statuses.get(name)
        if status is None and name in ledger.perhaps_deleted:
            audit.deleted += 1
        elif status is None:
            audit.lost[name] = "not in the database"
        elif name in ledger.deleted:
            audit.lost[name] = "deleted, but still there"
        elif status not in _FINAL:
            audit.lost[name] = f"still {status}"
        elif name in ledger.cancelled:
            continue
        elif name not in ledger.arrivals and name not in audit.refused:
            audit.lost[name] = "never arrived at the peer"
        elif status == "finished" and name not in ledger.runs:
            audit.lost[name] = "finished without a run"


def wrong_keys(database: RawDatabase, ledger: Ledger) -> list[str]:
    """The keys that have not made just the jobs of their first answer, or have other answers; and
    batches that no answer names.

    Jobs that may be deleted are left out.
    """
    rows = database.fetch("SELECT job_name, id, batch_id FROM jobs")
    recorded = {name: (number, batch) for name, number, batch in rows}
    batches, found = set(_names(database, "SELECT id FROM job_batches")), []
    for key, keyed in ledger.keyed.items():
        if len(set(keyed.bodies)) > 1:
            found.append(f"{key}: not replayed byte for byte")
        answer = orjson.loads(keyed.bodies[0]) if keyed.bodies else {"jobs": []}
        batch = answer.get("batch_id")
        batches.discard(str(batch))
        answered = {job["job_name"]: (job["id"], batch) for job in answer.get("jobs", [answer])}
        names = set(keyed.names) - ledger.perhaps_deleted
        made = {name: recorded[name] for name in names & recorded.keys()}
        if made != {name: answered.get(name) for name in names if keyed.bodies}:
            found.append(f"{key}: made {made}, answered {answered}")
    return found + [f"batch {number} of no answer" for number in sorted(batches)]


def _audit_runs(audit: Audit, ledger: Ledger) -> None:
    """The peer may give a job to another worker when the first one stalls."""
    for name, runs in ledger.runs.items():
        if len({run.number for run in runs}) > 1:
            audit.twice[name] = "two copies of it ran"
        elif len({run.entry for run in runs}) > 1:
            audit.twice[name] = "sent twice under one number"
        elif len(runs) > 1:
            audit.retried += 1


def _audit_mails(audit: Audit, database: RawDatabase, ledger: Ledger) -> None:
    """Every job that has ended has one mail about it, as has every ending a user observed; one that
    its user cancelled has none."""
    sent = ledger.mails
    ended = database.fetch(
        "SELECT jobs.job_name, emails.custom_id FROM jobs LEFT JOIN emails"
        " ON emails.job_id = jobs.id AND emails.kind = jobs.status AND emails.state = 'done'"
        f" WHERE jobs.status IN {_FINAL} AND jobs.cancelled_at IS NULL"
    )
    audit.mails_expected = len(ended)
    audit.duplicate_mails = [custom_id for custom_id, count in sent.items() if count > 1]
    audit.missing_mails = [str(name) for name, custom_id in ended if not sent[str(custom_id)]]
    audit.missing_mails += [subject for subject in ledger.endings if not ledger.subjects[subject]]


def _audit_rows(audit: Audit, database: RawDatabase, retention: float) -> None:
    for table in _DEPENDENT:
        orphans = f"SELECT job_id FROM {table} WHERE job_id NOT IN (SELECT id FROM jobs)"
        audit.orphans += [f"{table}: job {job_id}" for job_id in _names(database, orphans)]
    without = "SELECT job_name FROM jobs WHERE id NOT IN (SELECT job_id FROM handovers)"
    if isfinite(retention):  # settled hand-overs of older jobs are deleted
        without += f" AND date_created > {database.ago(str(retention))}"
    audit.without_handover = _names(database, without)
    audit.changed_after_end = _names(
        database,
        "SELECT job_name FROM jobs WHERE status = 'finished' AND ("
        f" runtime_details LIKE '%{AFTER_THE_END}%' OR date_finished IS NULL OR 1 <>"
        " (SELECT count(*) FROM job_events WHERE job_id = jobs.id"
        " AND job_events.status = 'finished'))",
    )


def _read_logs(audit: Audit, folder: Path) -> None:
    """Resends, what waited for the database, and exceptions that the services did not expect."""
    for service in ("gateway", "dispatcher", "notifier"):
        for log in folder.glob(f"{service}-*.log"):
            for line in log.read_bytes().splitlines():
                try:
                    entry: dict[str, Any] = orjson.loads(line)
                except orjson.JSONDecodeError:
                    audit.log_errors[f"{service}: no JSON"] += 1
                    continue
                event = str(entry.get("event"))
                audit.resends += event == "handover.renumbered"
                audit.postponed += event.endswith(".postponed")
                if "exception" in entry:
                    last = str(entry["exception"]).strip().splitlines()[-1]
                    audit.log_errors[f"{service}: {event}: {last}"] += 1
