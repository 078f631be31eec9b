from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.config.applications import Applications
from common.database.engine import Database, utc_now
from common.database.notify import ChannelNotifier
from common.database.tables import emails, heartbeats, job_events, jobs
from common.jobs.heartbeat import GATEWAY, PEER, beat
from common.outbox.peer_client import open_session
from dispatcher.stalled import QuestionSweep, StalledJobSweep
from dispatcher.worker_api import WorkerApi
from tests.support.dispatcher import KEY, FakePeer, hear
from tests.support.records import add_job, change, job_row, rows

HOUR = 3600.0
MARGIN = HOUR
APPLICATIONS = """
decode:
  v1:
    train:
      app: {cmd: [run], env: []}
      handler:
        image_url: image
        files_down: {}
        files_up: {}
        aws_resources: {timeout: 7200}
"""


async def listening_for(database: Database, seconds: float, name: str = PEER) -> None:
    """Everything has been all right for that long."""
    await beat(database, name)
    async with database.transaction() as tx:
        await tx.execute(
            heartbeats.update()
            .where(heartbeats.c.name == name)
            .values(outage_ended_at=utc_now(-seconds))
        )


async def silent_job(database: Database, seconds: float | None, **values: Any) -> int:
    """A running job that was last heard of so many seconds ago (None: never)."""
    job_id = await add_job(database, status=values.pop("status", "running"), **values)
    if seconds is not None:
        await change(database, jobs, job_id, last_seen_at=utc_now(-seconds))
    return job_id


@pytest.fixture
async def silence(database: Database, tmp_path: Path) -> AsyncIterator[StalledJobSweep]:
    (tmp_path / "applications.yaml").write_text(APPLICATIONS)
    notifier = ChannelNotifier(database)
    yield StalledJobSweep(
        database=database,
        applications=Applications(str(tmp_path / "applications.yaml")),
        notifier=notifier,
        default_timeout=24 * HOUR,
        margin=MARGIN,
    )
    await notifier.close()


@pytest.fixture
async def questions(database: Database, peer: FakePeer) -> AsyncIterator[QuestionSweep]:
    notifier = ChannelNotifier(database)
    async with open_session("tests", connections=4) as session:
        worker_api = WorkerApi(
            session, peer.url, KEY, timeout=5.0, status_path="/_jobs/{job_id}/status"
        )
        yield QuestionSweep(
            database=database, worker_api=worker_api, notifier=notifier, stale_after=60.0
        )
    await notifier.close()


async def status_of(database: Database, job_id: int) -> str:
    return str((await job_row(database, job_id))["status"])


async def test_a_job_silent_for_longer_than_its_application_may_take_ends_in_error(
    database: Database, silence: StalledJobSweep
) -> None:
    await listening_for(database, 100 * HOUR)
    silent = await silent_job(database, 3.1 * HOUR)
    quiet = await silent_job(database, 2.9 * HOUR)
    assert await silence.sweep() == 1
    job = await job_row(database, silent)
    assert job["status"] == "error"
    assert "No sign of life from the worker for 3 hours" in job["runtime_details"]
    assert await status_of(database, quiet) == "running"
    (mail,) = await rows(database, emails)
    assert (mail["job_id"], mail["kind"], mail["awaits_details"]) == (silent, "error", False)


async def test_a_job_without_a_configured_time_out_gets_the_default(
    database: Database, silence: StalledJobSweep
) -> None:
    await listening_for(database, 100 * HOUR)
    unknown = {"application": "gone", "version": "v1", "entrypoint": "train"}
    quiet = await silent_job(database, 24.9 * HOUR, application=unknown)
    silent = await silent_job(database, 25.1 * HOUR, application=unknown)
    assert await silence.sweep() == 1
    assert await status_of(database, quiet) == "running"
    assert await status_of(database, silent) == "error"


@pytest.mark.parametrize("status", ["queued", "finished", "error"])
async def test_only_jobs_that_a_worker_has_can_be_silent(
    database: Database, silence: StalledJobSweep, status: str
) -> None:
    await listening_for(database, 1000 * HOUR)
    job_id = await silent_job(database, 500 * HOUR, status=status)
    assert await silence.sweep() == 0
    assert await status_of(database, job_id) == status
    assert await rows(database, emails) == []


async def test_silence_counts_from_the_end_of_the_last_outage(
    database: Database, silence: StalledJobSweep
) -> None:
    await listening_for(database, 2 * HOUR)
    await silent_job(database, 50 * HOUR)
    assert await silence.sweep() == 0


async def test_an_adopted_job_is_silent_only_since_its_adoption(
    database: Database, silence: StalledJobSweep
) -> None:
    await listening_for(database, 2.9 * HOUR)
    adopted = await silent_job(database, None, correlation_id=None)
    assert await silence.sweep() == 0
    await listening_for(database, 3.1 * HOUR)
    assert await silence.sweep() == 1
    assert await status_of(database, adopted) == "error"


async def test_no_job_is_silent_during_an_outage_of_the_peer(
    database: Database, silence: StalledJobSweep
) -> None:
    await listening_for(database, 100 * HOUR)
    async with database.transaction() as tx:
        await tx.execute(heartbeats.update().values(last_at=utc_now(-70.0)))
    await silent_job(database, 90 * HOUR)
    assert await silence.sweep() == 0


async def test_no_job_is_silent_while_no_gateway_listens(
    database: Database, silence: StalledJobSweep
) -> None:
    await listening_for(database, 100 * HOUR)
    await listening_for(database, 100 * HOUR, GATEWAY)
    async with database.transaction() as tx:
        await tx.execute(
            heartbeats.update().where(heartbeats.c.name == GATEWAY).values(last_at=utc_now(-70.0))
        )
    await silent_job(database, 90 * HOUR)
    assert await silence.sweep() == 0


async def test_a_gap_between_heartbeats_is_an_outage_that_ends_with_the_next_one(
    database: Database, silence: StalledJobSweep
) -> None:
    await listening_for(database, 100 * HOUR)
    await silent_job(database, 90 * HOUR)
    async with database.transaction() as tx:
        await tx.execute(heartbeats.update().values(last_at=utc_now(-HOUR)))
    await beat(database, PEER)
    assert await silence.sweep() == 0
    (row,) = await rows(database, heartbeats)
    assert row["outage_ended_at"] == row["last_at"]


async def test_a_late_update_revives_a_job_and_withdraws_the_unsent_mail(
    database: Database, silence: StalledJobSweep
) -> None:
    await listening_for(database, 100 * HOUR)
    job_id = await silent_job(database, 50 * HOUR)
    await silence.sweep()
    assert await hear(database, job_id, "postprocessing") is not None
    job = await job_row(database, job_id)
    assert (job["status"], job["date_finished"]) == ("postprocessing", None)
    assert await rows(database, emails) == []


async def test_a_sweep_is_bounded_and_takes_up_where_it_stopped(
    database: Database, silence: StalledJobSweep
) -> None:
    await listening_for(database, 100 * HOUR)
    for _ in range(5):
        await silent_job(database, 2 * HOUR)  # looked at, but not silent for long enough
    silent = await silent_job(database, 50 * HOUR)
    silence.limit = 2
    for _ in range(3):
        await silence.sweep()
    assert await status_of(database, silent) == "error"


async def test_a_stale_job_gets_the_status_that_the_peer_tells(
    database: Database, questions: QuestionSweep, peer: FakePeer
) -> None:
    await listening_for(database, 100 * HOUR)
    stale = await silent_job(database, 100.0)
    fresh = await silent_job(database, 10.0)
    renumbered = await silent_job(database, 100.0, worker_number=777)
    peer.statuses = {stale: "finished", fresh: "error", 777: "running"}
    assert await questions.sweep() == 2
    assert sorted(peer.asked) == sorted([stale, 777])
    assert await status_of(database, stale) == "finished"
    assert await status_of(database, fresh) == "running"
    assert await questions.sweep() == 0  # the answer counts as a sign of life
    assert await status_of(database, renumbered) == "running"
    assert {row["source"] for row in await rows(database, job_events)} == {"reconciler"}


async def test_a_job_that_cannot_be_asked_for_keeps_no_other_from_it(
    database: Database,
    questions: QuestionSweep,
    peer: FakePeer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await listening_for(database, 100 * HOUR)
    faulty, *others = [await silent_job(database, 100.0) for _ in range(7)]
    peer.statuses = dict.fromkeys(others, "finished")
    ask = questions.worker_api.ask_status

    async def fail_for_one(number: int) -> Any:
        if number == faulty:
            raise RuntimeError
        return await ask(number)

    monkeypatch.setattr(questions.worker_api, "ask_status", fail_for_one)
    await questions.sweep()
    assert {await status_of(database, job_id) for job_id in others} == {"finished"}
    assert await status_of(database, faulty) == "running"


async def test_a_job_that_cannot_be_judged_keeps_no_other_from_it(
    database: Database, silence: StalledJobSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    await listening_for(database, 100 * HOUR)
    faulty = await silent_job(database, 50 * HOUR, application={"application": "faulty"})
    silent = await silent_job(database, 50 * HOUR)
    timeout_of = silence.applications.timeout_of

    async def fail_for_one(application: Any) -> Any:
        if application == {"application": "faulty"}:
            raise RuntimeError
        return await timeout_of(application)

    monkeypatch.setattr(silence.applications, "timeout_of", fail_for_one)
    assert await silence.sweep() == 1
    assert await status_of(database, silent) == "error"
    assert await status_of(database, faulty) == "running"


async def test_a_job_that_the_peer_denies_again_ends_in_error(
    database: Database, questions: QuestionSweep, peer: FakePeer
) -> None:
    await listening_for(database, 100 * HOUR)
    known = await silent_job(database, 100.0)
    denied = await silent_job(database, 100.0)
    peer.statuses = {known: "running"}
    await questions.sweep()
    assert await status_of(database, denied) == "running"
    await questions.sweep()
    assert await status_of(database, denied) == "error"


async def test_where_no_question_was_ever_answered_more_denials_are_needed(
    database: Database, questions: QuestionSweep
) -> None:
    await listening_for(database, 100 * HOUR)
    job_id = await silent_job(database, 100.0)
    for _ in range(3):
        await questions.sweep()
    assert await status_of(database, job_id) == "running"
    await questions.sweep()
    assert await status_of(database, job_id) == "error"


async def test_a_job_heard_of_while_the_peer_is_asked_keeps_its_status(
    database: Database, questions: QuestionSweep, peer: FakePeer, monkeypatch: Any
) -> None:
    await listening_for(database, 100 * HOUR)
    job_id = await silent_job(database, 100.0)
    peer.statuses = {job_id: "queued"}
    ask = questions.worker_api.ask_status

    async def ask_slowly(number: int) -> Any:
        answer = await ask(number)
        assert await hear(database, job_id, "finished") is not None
        return answer

    monkeypatch.setattr(questions.worker_api, "ask_status", ask_slowly)
    await questions.sweep()
    assert await status_of(database, job_id) == "finished"
