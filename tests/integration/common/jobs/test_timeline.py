"""The story of a job, on both databases, and the command that prints it."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from datetime import datetime
from pathlib import Path

import orjson
import pytest
from sqlalchemy import insert

from common.config.settings import REPOSITORY
from common.database.engine import Database, utc_now
from common.database.notify import ChannelNotifier
from common.database.tables import handover_numbers, job_events
from common.jobs.cancellation import Wish, cancel_jobs
from common.jobs.digest import gather, write_digest
from common.jobs.lifecycle import Report, Source, Status
from common.jobs.timeline import StoryError, read_story
from common.jobs.updates import apply_worker_report
from common.notifications.choices import Choice, write_choice
from common.notifications.suppression import suppress
from tests.support.records import add_handover, add_job, add_mail

SECRET = "what the user submitted"


async def _report(database: Database, number: int, status: Status, details: str | None) -> None:
    async with database.transaction() as tx:
        assert await apply_worker_report(tx, number, Report(status, details, Source.WORKER))


@pytest.fixture
async def job_id(database: Database) -> int:
    """A job that was sent twice, ran under the second number, and failed."""
    job_id = await add_job(database, job_name="train_1", attributes={"env_vars": SECRET})
    second = job_id + 1000
    before = {"created_at": utc_now(-1.0)}  # a fast machine reports in the same millisecond
    row = {"job_id": job_id, **before}
    async with database.transaction() as tx:
        await tx.execute(insert(job_events).values(status="queued", source="user", **row))
    sent = {"number": second, "attempts": 2, "doubts": 1}
    await add_handover(database, job_id, payload=SECRET, **sent, **before)
    async with database.transaction() as tx:
        await tx.execute(insert(handover_numbers).values(number=second, **row))
    await _report(database, job_id + 1000, Status.RUNNING, None)
    await _report(database, job_id + 1000, Status.ERROR, "1\n2\n3\n4\n\x1b[31mCUDA out of memory")
    return job_id


async def test_the_time_line_runs_from_submission_to_mail(database: Database, job_id: int) -> None:
    story = await read_story(database, job_id)
    line = [moment.what.partition("\n")[0] for moment in story.time_line()]
    again = f"no proof of arrival: sent again under the delivery number {job_id + 1000}"
    expected = ["queued", f"hand-over written, number {job_id}", again, "running", "error"]
    assert [what for what in line if what in expected] == expected
    assert "mail 'error' written to ada@example.org" in line
    assert "hand-over done after 2 attempt(s)" in line


async def test_a_cancellation_shows_who_and_why_and_when_its_worker_was_stopped(
    database: Database,
) -> None:
    job_id = await add_handover(database)
    await cancel_jobs(
        database, ChannelNotifier(database), Wish("ada", "ada@example.org", "wrong file"), [job_id]
    )
    text = (await read_story(database, job_id)).as_text()
    assert "gateway     hand-over dropped: the job was cancelled" in text
    assert "user        cancelled\n" in text
    assert "Cancelled: by ada@example.org, 'wrong file', at " in text
    assert "; no worker has reported since" in text
    await _report(database, job_id, Status.RUNNING, None)
    text = (await read_story(database, job_id)).as_text()
    assert "worker      a worker of the cancelled job was stopped" in text
    assert "; confirmed 20" in text


async def test_the_text_shows_the_end_of_details_without_control_characters(
    database: Database, job_id: int
) -> None:
    text = (await read_story(database, job_id)).as_text()
    for shown in (
        f"Job {job_id} 'train_1' of ada: error",
        "(2 lines more)",
        "| CUDA out of memory",
        "Mail 'error': waiting to be sent",
    ):
        assert shown in text
    assert "\x1b" not in text


async def test_the_story_says_why_no_mail_came(database: Database) -> None:
    returned, done = "bounced for good (user unknown)", {"state": "done", "attempts": 1}
    job_id = await add_mail(database, settled_at=utc_now(), last_error=returned, **done)
    dropped = {"state": "dropped", "last_error": "the user has chosen to get no mails"}
    await add_mail(database, job_id, kind="error", settled_at=utc_now(), **dropped)
    async with database.transaction() as tx:
        await suppress(tx, "Ada@example.org", returned)
        await write_choice(tx, "ada", Choice.NONE)
    text = (await read_story(database, job_id)).as_text()
    assert f"mail 'finished' done after 1 attempt(s); {returned}" in text
    assert "mail 'error' dropped: the user has chosen to get no mails" in text
    assert f"mailjet     mails to ada@example.org stopped: {returned}" in text
    assert "Mails wanted: none, as the user chose" in text


async def test_the_story_holds_the_digest_that_names_the_job(database: Database) -> None:
    job_id = await add_job(database, status="finished", notify="errors")
    async with database.transaction() as tx:
        await gather(tx, "ada", job_id)
        assert await write_digest(tx, "ada")
    text = (await read_story(database, job_id)).as_text()
    assert "mail 'digest' written to ada@example.org" in text
    assert "Mails wanted: errors, as the submission chose" in text


async def test_a_delivery_number_finds_its_job(database: Database, job_id: int) -> None:
    assert (await read_story(database, job_id + 1000)).job["id"] == job_id


async def test_json_holds_every_table_but_not_what_was_submitted(
    database: Database, job_id: int
) -> None:
    shown = (await read_story(database, job_id)).as_json()
    assert SECRET.encode() not in shown
    story = orjson.loads(shown)
    assert story["handover"]["state"] == "done"
    assert [number["number"] for number in story["handover_numbers"]] == [job_id + 1000]
    assert [mail["kind"] for mail in story["emails"]] == ["error"]
    assert [event["status"] for event in story["events"]] == ["queued", "running", "error"]
    times = [datetime.fromisoformat(moment["at"]) for moment in story["time_line"]]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("pending", "waiting to be sent, due for"),
        ("sending", "being sent by"),
        ("in_doubt", "in doubt, wait for proof"),
        ("held", "held, since the peer refused our key or address"),
        ("done", "done;"),
        ("failed", "failed for good"),
    ],
)
async def test_every_state_of_an_outbox_is_explained(
    database: Database, state: str, words: str
) -> None:
    job_id = await add_handover(database, state=state)
    assert words in (await read_story(database, job_id)).as_text()


async def test_the_story_of_an_adopted_job_consists_of_its_dates(database: Database) -> None:
    created, started, ended = (datetime(2025, 1, 1, hour) for hour in (12, 13, 14))  # noqa: DTZ001
    dates = {"date_created": created, "date_started": started, "date_finished": ended}
    job_id = await add_job(database, user_email=None, correlation_id=None, **dates)
    text = (await read_story(database, job_id)).as_text()
    for shown in (
        "2025-01-01 12:00:00.000  user        submitted",
        "2025-01-01 14:00:00.000  worker      ended",
        "Hand-over: none",
        "no e-mail address",
    ):
        assert shown in text


@pytest.mark.parametrize("number", [0, -1, 4711, 2**31, 2**70])
async def test_an_unknown_id_is_refused(database: Database, number: int) -> None:
    with pytest.raises(StoryError, match=f"there is no job {number}"):
        await read_story(database, number)


async def _run(url: str, *arguments: str, folder: Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "common.story", *arguments),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "DATABASE_URL": url},
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.slow
async def test_the_command_prints_text_json_and_one_sentence_for_the_unknown(
    database: Database, database_url: str, job_id: int, tmp_path: Path
) -> None:
    text, as_json, unknown = await asyncio.gather(
        _run(database_url, str(job_id), folder=tmp_path),
        _run(database_url, str(job_id), "--json", folder=tmp_path),
        _run(database_url, "4711", folder=tmp_path),
    )
    assert text[0] == 0
    assert f"Job {job_id} 'train_1' of ada: error" in text[1]
    assert orjson.loads(as_json[1])["job"]["id"] == job_id
    assert unknown == (1, "", "story: there is no job 4711.\n")


async def test_a_missing_database_is_refused_and_not_created(tmp_path: Path) -> None:
    missing = tmp_path / "none.db"
    status, _, sentence = await _run(f"sqlite:///{missing}", "1", folder=tmp_path)
    assert (status, sentence) == (1, f"story: there is no database file {missing}.\n")
    assert not missing.exists()


async def test_a_database_without_our_tables_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    status, _, sentence = await _run("sqlite:///empty.db", "1", folder=tmp_path)
    assert (status, sentence.count("\n")) == (1, 1)
    assert "run python -m common.migrate" in sentence
