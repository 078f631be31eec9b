"""Of one user and priority, hand-overs arrive in the order of their submission."""

import asyncio
import random
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from common.database.engine import Database
from common.database.notify import ChannelNotifier
from common.database.tables import handover_numbers, handovers
from common.jobs.cancellation import Wish, cancel_jobs
from common.jobs.deletion import mark_deleted
from devtools.waiting import eventually
from dispatcher import app, forward
from gateway.jobs.insertion import JobInsertion
from tests.integration.dispatcher.conftest import Dispatch
from tests.support.dispatcher import FakePeer, always, answering, numbered
from tests.support.fakes import abort
from tests.support.records import all_done, change, outbox_row, rows, submission, until

PATIENT = {"handover_timeout": 60.0}


async def submit(database: Database, count: int, user: str = "ada", priority: int = 0) -> list[int]:
    """Submit jobs one after the other; returns their ids."""
    insert = JobInsertion(database).one
    return [(await insert(submission(user, priority)))["id"] for _ in range(count)]


class Moody(FakePeer):
    """Answers at random, and at most three times in a row so that a job has to be sent again."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._failed: dict[int, int] = defaultdict(int)
        self.behave = self._answer

    async def _answer(self, request: web.Request, body: Any) -> web.StreamResponse | None:
        number = body["job"]["meta"]["job_id"]
        await asyncio.sleep(self._random.random() / 100)
        if self._failed[number] >= 3 or self._random.random() < 0.6:
            return None
        self._failed[number] += 1
        kind = self._random.choice(["500", "503", "429", "reset", "502"])
        if kind == "reset":
            return abort(request)
        pause = {"Retry-After": "1"} if kind == "429" else {}
        return answering(int(kind), **pause)()


@pytest.mark.parametrize("seed", range(2))
async def test_hand_overs_arrive_in_order_through_failures_and_from_two_dispatchers(
    database: Database, dispatch: Dispatch, seed: int
) -> None:
    lanes = [("ada", 0), ("ada", 5), ("bob", 0)]
    submitted = {lane: await submit(database, 8, *lane) for lane in lanes}
    peer = Moody(seed)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(peer.served())
        for _ in range(2):
            await stack.enter_async_context(dispatch(peer.url, **PATIENT, handover_grace=0.5))
        for lane in lanes:  # while it goes on
            submitted[lane] += await submit(database, 8, *lane)
        await eventually(lambda: all_done(database, handovers, 48), within=120.0)
    # what was in doubt, and sent again, may have been overtaken
    doubted = {row["job_id"] for row in await rows(database, handover_numbers)}
    for lane, jobs in submitted.items():
        expected = [job for job in jobs if job not in doubted]
        assert [job for job in peer.taken if job in expected] == expected, lane
    assert len(doubted) < 24


@pytest.mark.parametrize(
    ("answer", "attempts"),
    [
        (answering(500), forward.ENOUGH_ATTEMPTS),
        (answering(418), forward.ENOUGH_ATTEMPTS),
        (answering(503, **{"Retry-After": "40"}), 0),
    ],
    ids=["not taken", "held", "to be repeated late"],
)
async def test_a_job_that_alone_is_never_taken_is_set_aside(
    database: Database, peer: FakePeer, dispatch: Dispatch, answer: Any, attempts: int
) -> None:
    poisoned, *others = await submit(database, 20)
    await change(database, handovers, poisoned, attempts=attempts)
    peer.behave = numbered({poisoned: answer})
    async with dispatch(**PATIENT):
        await eventually(lambda: len(peer.taken) == len(others), within=60.0)
        assert peer.taken == others
        assert (await outbox_row(database, handovers, poisoned))["set_aside"]
        later = await submit(database, 3)  # without waiting for its next failure
        await eventually(lambda: peer.taken[-3:] == later)


async def test_several_jobs_in_a_row_that_are_never_taken_are_set_aside(
    database: Database, peer: FakePeer, dispatch: Dispatch
) -> None:
    poisoned, others = await submit(database, 3), await submit(database, 3)
    for job_id in poisoned:
        await change(database, handovers, job_id, attempts=forward.ENOUGH_ATTEMPTS)
    peer.behave = numbered(dict.fromkeys(poisoned, answering(500)))
    async with dispatch(**PATIENT):
        await eventually(lambda: peer.taken == others, within=60.0)


async def test_a_peer_that_takes_nothing_for_long_gets_everything_in_order_afterwards(
    database: Database, peer: FakePeer, dispatch: Dispatch
) -> None:
    jobs = await submit(database, 6)
    await change(database, handovers, jobs[0], attempts=forward.ENOUGH_ATTEMPTS)
    peer.behave = always(answering(503))
    async with dispatch(**PATIENT):
        # also of the one behind, directly after the first one
        await eventually(lambda: peer.tried.count(jobs[1]) >= 2, within=60.0)
        peer.behave = None
        await until(database, handovers, done=6, within=60.0)
    assert peer.taken == jobs
    assert set(peer.tried) == {*jobs}


async def test_a_job_whose_call_lasts_holds_up_the_others_of_its_user_for_a_moment_only(
    database: Database, peer: FakePeer, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "patience", lambda _: 1.0)
    slow, *others = await submit(database, 20)
    released = asyncio.Event()

    async def behave(_: web.Request, body: Any) -> None:
        if body["job"]["meta"]["job_id"] == slow:
            await released.wait()

    peer.behave = behave
    async with dispatch(**PATIENT):
        await eventually(lambda: peer.taken == others, within=60.0)
        released.set()
        await until(database, handovers, done=20)
    assert peer.taken == [*others, slow]


@pytest.mark.parametrize("attempts", [0, forward.ENOUGH_ATTEMPTS], ids=["taken", "never taken"])
async def test_a_job_that_is_cancelled_or_deleted_while_it_waits_in_its_lane_is_not_sent(
    database: Database,
    peer: FakePeer,
    dispatch: Dispatch,
    monkeypatch: pytest.MonkeyPatch,
    attempts: int,
) -> None:
    monkeypatch.setattr(forward, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(forward, "_LANE_SECONDS", 60.0)
    first, cancelled, deleted, last = await submit(database, 4)
    await change(database, handovers, first, attempts=attempts)
    tried, released = asyncio.Event(), asyncio.Event()

    async def behave(_: web.Request, body: Any) -> web.StreamResponse | None:
        if body["job"]["meta"]["job_id"] != first:
            return None
        tried.set()
        await released.wait()
        return web.json_response(None, status=503) if attempts else None

    peer.behave = behave
    async with dispatch(**PATIENT):
        await asyncio.wait_for(tried.wait(), 60.0)
        assert (await outbox_row(database, handovers, deleted))["state"] == "sending"
        wish = Wish("ada", "ada", None)
        await cancel_jobs(database, ChannelNotifier(database), wish, [cancelled])
        async with database.transaction() as tx:
            await mark_deleted(tx, "ada", deleted)
        released.set()
        await eventually(lambda: last in peer.taken, within=60.0)
    assert {*peer.tried} == {first, last}
