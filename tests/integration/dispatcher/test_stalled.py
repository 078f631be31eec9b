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


async def change_heartbeats(database: Database, name: str = PEER, **values: Any) -> None:
    async with database.transaction() as tx:
        await tx.execute(heartbeats.update().where(heartbeats.c.name == name).values(values))


async def listening_for(database: Database, seconds: float, name: str = PEER) -> None:
    """This part of the service has been healthy for that long."""
    await beat(database, name)
    await change_heartbeats(database, name, outage_ended_at=utc_now(-seconds))


async def silent_job(database: Database, seconds: float | None, **values: Any) -> int:
    """A running job whose last update was so many seconds ago (None: never)."""
    job_id = await add_job(database, **{"status": "running", **values})
    if seconds is not None:
        await change(database, jobs, job_id, last_seen_at=utc_now(-seconds))
    return job_id


@pytest.fixture
async def notifier(database: Database) -> AsyncIterator[ChannelNotifier]:
    """The service has been listening to workers for a long time."""
    await listening_for(database, 1000 * HOUR)
    notifier = ChannelNotifier(database)
    yield notifier
    await notifier.close()


@pytest.fixture
def stalled(database: Database, notifier: ChannelNotifier, tmp_path: Path) -> StalledJobSweep:
    (tmp_path / "applications.yaml").write_text(APPLICATIONS)
    return StalledJobSweep(
        database=database,
        applications=Applications(str(tmp_path / "applications.yaml")),
        notifier=notifier,
        default_timeout=24 * HOUR,
        margin=MARGIN,
    )


@pytest.fixture
async def questions(
    database: Database, notifier: ChannelNotifier, peer: FakePeer
) -> AsyncIterator[QuestionSweep]:
    async with open_session("tests", connections=4) as session:
        path = "/_jobs/{job_id}/status"
        worker_api = WorkerApi(session, peer.url, KEY, timeout=5.0, status_path=path)
        yield QuestionSweep(
            database=database, worker_api=worker_api, notifier=notifier, stale_after=60.0
        )


async def status_of(database: Database, job_id: int) -> str:
    return str((await job_row(database, job_id))["status"])


@pytest.mark.parametrize(
    ("application", "hours"),
    [
        ({"application": "decode", "version": "v1", "entrypoint": "train"}, 3),
        ({"application": "gone", "version": "v1", "entrypoint": "train"}, 25),  # the default
    ],
)
async def test_a_job_silent_for_longer_than_its_time_out_and_a_margin_ends_in_error(
    database: Database, stalled: StalledJobSweep, application: Any, hours: int
) -> None:
    silent = await silent_job(database, (hours + 0.1) * HOUR, application=application)
    quiet = await silent_job(database, (hours - 0.1) * HOUR, application=application)
    assert await stalled.sweep() == 1
    job = await job_row(database, silent)
    assert job["status"] == "error"
    assert f"No sign of life from the worker for {hours} hours" in job["runtime_details"]
    assert await status_of(database, quiet) == "running"
    (mail,) = await rows(database, emails)
    assert (mail["job_id"], mail["kind"], mail["awaits_details"]) == (silent, "error", False)


@pytest.mark.parametrize("status", ["queued", "finished", "error"])
async def test_only_jobs_that_a_worker_has_can_be_stalled(
    database: Database, stalled: StalledJobSweep, status: str
) -> None:
    job_id = await silent_job(database, 500 * HOUR, status=status)
    assert await stalled.sweep() == 0
    assert await status_of(database, job_id) == status
    assert await rows(database, emails) == []


async def test_an_adopted_jobs_silence_counts_from_its_adoption(
    database: Database, stalled: StalledJobSweep
) -> None:
    await listening_for(database, 2.9 * HOUR)
    adopted = await silent_job(database, None, correlation_id=None)
    assert await stalled.sweep() == 0
    await listening_for(database, 3.1 * HOUR)
    assert await stalled.sweep() == 1
    assert await status_of(database, adopted) == "error"


@pytest.mark.parametrize("part", [PEER, GATEWAY])
async def test_no_job_is_stalled_while_the_peer_or_every_gateway_is_away(
    database: Database, stalled: StalledJobSweep, part: str
) -> None:
    await listening_for(database, 100 * HOUR, GATEWAY)
    await change_heartbeats(database, part, last_at=utc_now(-70.0))
    await silent_job(database, 90 * HOUR)
    assert await stalled.sweep() == 0


async def test_silence_counts_from_the_end_of_a_gap_between_heartbeats(
    database: Database, stalled: StalledJobSweep
) -> None:
    silent = await silent_job(database, 90 * HOUR)
    await change_heartbeats(database, last_at=utc_now(-HOUR))
    await beat(database, PEER)
    assert await stalled.sweep() == 0
    (row,) = await rows(database, heartbeats)
    assert row["outage_ended_at"] == row["last_at"]
    await listening_for(database, 2 * HOUR)
    assert await stalled.sweep() == 0
    await listening_for(database, 30 * HOUR)
    assert await stalled.sweep() == 1
    assert await status_of(database, silent) == "error"


async def test_a_sweep_is_bounded_and_continues_where_it_stopped(
    database: Database, stalled: StalledJobSweep
) -> None:
    for _ in range(5):
        await silent_job(database, 2 * HOUR)  # looked at, but not silent for long enough
    silent = await silent_job(database, 50 * HOUR)
    stalled.limit = 2
    for _ in range(3):
        await stalled.sweep()
    assert await status_of(database, silent) == "error"


async def test_a_stale_job_gets_the_status_that_the_peer_reports(
    database: Database, questions: QuestionSweep, peer: FakePeer
) -> None:
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


async def test_a_job_that_cannot_be_checked_keeps_no_other_from_its_turn(
    database: Database, stalled: StalledJobSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = await silent_job(database, 50 * HOUR, application={"application": "faulty"})
    silent = await silent_job(database, 50 * HOUR)
    timeout_of = stalled.applications.timeout_of

    async def fail_for_one(application: Any) -> Any:
        if application == {"application": "faulty"}:
            raise RuntimeError
        return await timeout_of(application)

    monkeypatch.setattr(stalled.applications, "timeout_of", fail_for_one)
    assert await stalled.sweep() == 1
    assert await status_of(database, silent) == "error"
    assert await status_of(database, faulty) == "running"


@pytest.mark.parametrize(("has_answered", "denials"), [(True, 2), (False, 4)])
async def test_a_job_that_the_peer_denies_repeatedly_ends_in_error(
    database: Database, questions: QuestionSweep, peer: FakePeer, has_answered: bool, denials: int
) -> None:
    if has_answered:
        peer.statuses = {await silent_job(database, 100.0): "running"}
    denied = await silent_job(database, 100.0)
    for _ in range(denials):
        assert await status_of(database, denied) == "running"
        await questions.sweep()
    assert await status_of(database, denied) == "error"


async def test_a_job_heard_of_while_the_peer_is_asked_keeps_its_status(
    database: Database, questions: QuestionSweep, peer: FakePeer, monkeypatch: Any
) -> None:
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
