"""The story of a job, on both databases, and the command that tells it."""

import asyncio
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest
from sqlalchemy import insert

from common.database.engine import Database, utc_now
from common.database.tables import handover_numbers, handovers, job_events
from common.jobs.lifecycle import Report, Source, Status
from common.jobs.timeline import StoryError, read_story
from common.jobs.updates import apply_worker_report
from tests.support.records import add_handover, add_job, change

REPOSITORY = Path(__file__).resolve().parents[4]
SECRET = "what the user submitted"


async def _report(database: Database, number: int, status: Status, details: str | None) -> None:
    async with database.transaction() as tx:
        assert await apply_worker_report(tx, number, Report(status, details, Source.WORKER))


@pytest.fixture
async def job_id(database: Database) -> int:
    """A job that was sent twice, ran under the second number, and failed."""
    job_id = await add_job(database, job_name="train_1", attributes={"env_vars": SECRET})
    async with database.transaction() as tx:
        await tx.execute(
            insert(job_events).values(
                job_id=job_id, status="queued", source="user", created_at=utc_now()
            )
        )
    await add_handover(database, job_id, payload=SECRET)
    await change(database, handovers, job_id, number=job_id + 1000, attempts=2, doubts=1)
    async with database.transaction() as tx:
        await tx.execute(
            insert(handover_numbers).values(
                number=job_id + 1000, job_id=job_id, created_at=utc_now()
            )
        )
    await _report(database, job_id + 1000, Status.RUNNING, None)
    await _report(database, job_id + 1000, Status.ERROR, "1\n2\n3\n4\n\x1b[31mCUDA out of memory")
    return job_id


async def test_the_time_line_runs_from_submission_to_mail(database: Database, job_id: int) -> None:
    story = await read_story(database, job_id)

    line = [moment.what.partition("\n")[0] for moment in story.time_line()]
    positions = [
        line.index(what)
        for what in (
            "queued",
            f"hand-over written, number {job_id}",
            f"no proof of arrival: to be sent again as delivery number {job_id + 1000}",
            "running",
            "error",
        )
    ]
    assert positions == sorted(positions)
    assert "mail 'error' written to ada@example.org" in line
    assert "hand-over done after 2 attempt(s)" in line


async def test_the_text_shows_the_end_of_details_without_control_characters(
    database: Database, job_id: int
) -> None:
    text = (await read_story(database, job_id)).as_text()

    assert f"Job {job_id} 'train_1' of ada: error" in text
    assert "(2 lines more)" in text
    assert "?[31mCUDA out of memory" in text
    assert "\x1b" not in text
    assert "Mail 'error': waiting to be sent" in text


async def test_a_fresh_number_finds_its_job(database: Database, job_id: int) -> None:
    assert (await read_story(database, job_id + 1000)).job["id"] == job_id


async def test_json_holds_every_table_but_not_what_was_submitted(
    database: Database, job_id: int
) -> None:
    told = (await read_story(database, job_id)).as_json()

    assert SECRET.encode() not in told
    story = orjson.loads(told)
    assert story["handover"]["state"] == "done"
    assert [number["number"] for number in story["handover_numbers"]] == [job_id + 1000]
    assert [mail["kind"] for mail in story["emails"]] == ["error"]
    assert [event["status"] for event in story["events"]] == ["queued", "running", "error"]
    times = [datetime.fromisoformat(moment["at"]) for moment in story["time_line"]]
    assert times == sorted(times)


async def test_every_state_of_an_outbox_is_told(database: Database) -> None:
    expected = {
        "pending": "waiting to be sent, due for",
        "sending": "being sent by",
        "in_doubt": "in doubt, wait for proof",
        "held": "held, since the peer refused our key or address",
        "done": "done;",
        "failed": "failed for good",
    }
    for state, words in expected.items():
        job_id = await add_handover(database, state=state)
        assert words in (await read_story(database, job_id)).as_text()


async def test_a_job_of_the_earlier_service_is_told_from_its_dates(database: Database) -> None:
    started = datetime.fromisoformat("2025-01-01T12:00:00")
    job_id = await add_job(
        database,
        user_email=None,
        correlation_id=None,
        date_created=started,
        date_started=started + timedelta(hours=1),
        date_finished=started + timedelta(hours=2),
    )

    text = (await read_story(database, job_id)).as_text()

    assert "2025-01-01 12:00:00.000  user        submitted" in text
    assert "2025-01-01 14:00:00.000  worker      ended" in text
    assert "Hand-over: none" in text
    assert "no e-mail address" in text


@pytest.mark.parametrize("number", [0, -1, 4711, 2**31, 2**70])
async def test_an_unknown_id_is_said_to_be_unknown(database: Database, number: int) -> None:
    with pytest.raises(StoryError, match=f"there is no job {number}"):
        await read_story(database, number)


async def _run(url: str, *arguments: str, folder: Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "common.story",
        *arguments,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.slow
async def test_the_command_prints_text_json_and_one_sentence_for_the_unknown(
    database: Database, database_url: str, job_id: int, tmp_path: Path
) -> None:
    text, told, unknown = await asyncio.gather(
        _run(database_url, str(job_id), folder=tmp_path),
        _run(database_url, str(job_id), "--json", folder=tmp_path),
        _run(database_url, "4711", folder=tmp_path),
    )

    assert text[0] == 0
    assert f"Job {job_id} 'train_1' of ada: error" in text[1]
    assert orjson.loads(told[1])["job"]["id"] == job_id
    assert unknown == (1, "", "story: there is no job 4711.\n")


async def test_a_database_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "none.db"

    status, _, sentence = await _run(f"sqlite:///{missing}", "1", folder=tmp_path)

    assert (status, sentence) == (1, f"story: there is no database file {missing}.\n")
    assert not missing.exists()


async def test_a_database_without_our_tables_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()

    status, _, sentence = await _run(f"sqlite:///{empty}", "1", folder=tmp_path)

    assert (status, sentence.count("\n")) == (1, 1)
    assert "run python -m common.migrate" in sentence
