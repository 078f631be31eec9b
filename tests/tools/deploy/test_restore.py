"""The manual's statements after a restore: nothing that the backup holds is sent blindly again."""

import re
import sqlite3
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Table
from sqlalchemy.engine import make_url

from common.database.engine import Database, utc_now
from common.database.tables import emails, handovers, jobs
from tests.support import dispatcher, notifier
from tests.support.records import add_handover, add_job, add_mail, job_row, outbox_row, rows
from tests.tools.deploy.places import DOCS

UNSETTLED = ("pending", "sending", "in_doubt", "held")
SETTLED = ("done", "dropped", "failed")
HOUR = 3600.0

_BLOCKS = re.findall(
    r"^(psql|sqlite3) [^\n]*<<'SQL'\n(.*?)^SQL$",
    (DOCS / "operating.md").read_text(),
    flags=re.MULTILINE | re.DOTALL,
)
STATEMENTS = dict(_BLOCKS)


async def put_right(url: str) -> None:
    """Run the manual's statements, as `psql` or `sqlite3` would."""
    assert len(_BLOCKS) == len(STATEMENTS) == 2
    if url.startswith("sqlite"):
        connection = sqlite3.connect(str(make_url(url).database), isolation_level=None)
        connection.executescript(STATEMENTS["sqlite3"])
        connection.close()
        return
    postgres: Any = await asyncpg.connect(url)
    await postgres.execute(STATEMENTS["psql"])
    await postgres.close()


SENDERS: dict[Table, Any] = {handovers: dispatcher, emails: notifier}


async def what_would_be_sent(database: Database, table: Table) -> set[int]:
    """Jobs whose items a daemon would send, held ones included, without a look for proof."""
    outbox = SENDERS[table].outbox_of(database)
    taken = await outbox.claim(100) + await outbox.claim_one() + await outbox.claim_held(100)
    return {item.job_id for item in taken}


async def test_no_handover_is_sent_before_an_hour_has_passed(
    database: Database, database_url: str
) -> None:
    leased = {"owner": "gone", "leased_until": utc_now(-1.0), "attempts": 1}
    unsettled = [await add_handover(database, state=state, **leased) for state in UNSETTLED]
    settled = [await add_handover(database, state=state, settled_at=utc_now()) for state in SETTLED]
    assert await what_would_be_sent(database, handovers)

    await put_right(database_url)

    assert await what_would_be_sent(database, handovers) == set()
    assert await dispatcher.outbox_of(database).claim_doubtful(100) == []
    for job_id in unsettled:
        row = await outbox_row(database, handovers, job_id)
        assert (row["state"], row["doubts"], row["owner"]) == ("in_doubt", 1, None)
        assert HOUR - 60 < (row["due_at"] - row["created_at"]).total_seconds() < HOUR + 60
    states = [(await outbox_row(database, handovers, job_id))["state"] for job_id in settled]
    assert states == list(SETTLED)


async def test_every_unsettled_mail_is_looked_up_at_once_and_none_is_sent_a_third_time(
    database: Database, database_url: str
) -> None:
    unsettled = [await add_mail(database, state=state) for state in UNSETTLED]
    sent_twice = await add_mail(database, state="in_doubt", doubts=2)
    settled = [await add_mail(database, state=state, settled_at=utc_now()) for state in SETTLED]

    await put_right(database_url)

    assert await what_would_be_sent(database, emails) == set()
    looked_up = await notifier.outbox_of(database).claim_doubtful(100)
    doubts = {item.job_id: item.doubts for item in looked_up}
    assert doubts == dict.fromkeys(unsettled, 1) | {sent_twice: 3}
    states = [(await outbox_row(database, emails, job_id))["state"] for job_id in settled]
    assert states == list(SETTLED)


@pytest.mark.parametrize("left", ["all", "none", "never any"])
async def test_no_id_is_used_again(database: Database, database_url: str, left: str) -> None:
    before = 0 if left == "never any" else await add_job(database)
    if left == "none":
        async with database.transaction() as tx:
            await tx.execute(jobs.delete())

    await put_right(database_url)

    assert await add_job(database) > before + 100_000


async def test_a_deletion_under_way_takes_no_files_of_a_newer_job(
    database: Database, database_url: str
) -> None:
    kept = await add_handover(database)
    deleted = await add_job(database, deleted_at=utc_now(-HOUR))
    await add_mail(database, deleted)

    await put_right(database_url)

    assert [row["id"] for row in await rows(database, jobs)] == [kept]
    assert await rows(database, emails) == []
    assert (await job_row(database, kept))["status"] == "queued"
