import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import insert

from common.database.engine import Database, utc_now
from common.database.tables import (
    emails,
    handover_numbers,
    handovers,
    idempotency_keys,
    job_deletions,
)
from common.runtime.daemon import HEALTH
from deploy.sandbox.ports import free_port
from devtools.waiting import eventually
from dispatcher import maintenance
from gateway.jobs.insertion import JobInsertion
from tests.integration.dispatcher.conftest import Dispatch
from tests.support.dispatcher import FakePeer, always, answering, hear, numbered
from tests.support.fakes import abort
from tests.support.metrics import metric
from tests.support.records import (
    add_handover,
    add_job,
    all_done,
    change,
    job_row,
    outbox_row,
    rows,
    states,
    submission,
    until,
)


@pytest.mark.parametrize("code", [400, 422])
async def test_a_refused_or_unreadable_job_ends_in_error_with_the_reason_and_a_mail(
    database: Database, peer: FakePeer, dispatch: Dispatch, code: int
) -> None:
    refused, *others = [await add_handover(database) for _ in range(5)]
    unreadable = await add_handover(database, payload='{"job": 1}')
    peer.behave = numbered({refused: answering(code)})
    async with dispatch():
        await until(database, handovers, done=4, failed=2)
    words = {refused: f"status {code}", unreadable: "what was stored of this job is unreadable"}
    for job_id in (refused, unreadable):
        job = await job_row(database, job_id)
        assert job["status"] == "error"
        assert words[job_id] in job["runtime_details"]
        assert job["date_finished"] is not None
    mails = [(mail["job_id"], mail["kind"]) for mail in await rows(database, emails)]
    assert sorted(mails) == [(refused, "error"), (unreadable, "error")]
    assert sorted(peer.tried) == [refused, *others]


@pytest.mark.parametrize("code", [429, 503])
async def test_what_was_not_taken_is_sent_again_under_the_same_number(
    database: Database, peer: FakePeer, dispatch: Dispatch, code: int
) -> None:
    job_id = await add_handover(database)

    async def refuse_twice(_: web.Request, __: Any) -> web.StreamResponse | None:
        return answering(code)() if len(peer.tried) <= 2 else None

    peer.behave = refuse_twice
    async with dispatch():
        await until(database, handovers, done=1)
    assert peer.tried == [job_id] * 3
    assert peer.request_ids == [f"correlation-{job_id}"] * 3
    assert await rows(database, handover_numbers) == []


async def test_a_retry_after_for_one_job_is_respected_and_holds_up_no_other(
    database: Database, peer: FakePeer, dispatch: Dispatch
) -> None:
    poisoned = await add_handover(database)
    peer.behave = numbered({poisoned: answering(503, **{"Retry-After": "40"})})

    async def waits() -> Any:
        row = await outbox_row(database, handovers, poisoned)
        return row["last_error"] == "HTTP 503" and row["due_at"] - row["created_at"]

    async with dispatch():
        delay = await eventually(waits)
        others = [await add_handover(database) for _ in range(3)]
        await eventually(lambda: sorted(peer.taken) == others)
    assert delay.total_seconds() >= 40
    assert peer.tried.count(poisoned) == 1


async def test_a_lost_answer_is_resent_under_another_number_after_the_grace_period(
    database: Database, peer: FakePeer, dispatch: Dispatch
) -> None:
    job_id = await add_handover(database)

    async def take_and_drop(request: web.Request, body: Any) -> web.StreamResponse | None:
        if len(peer.tried) > 1:
            return None
        peer.taken.append(body["job"]["meta"]["job_id"])
        return abort(request)

    peer.behave = take_and_drop
    async with dispatch():
        await until(database, handovers, done=1)
    first, second = peer.taken
    assert first == job_id < second
    assert await add_job(database) > second  # no job will ever have that number as its id
    (recorded,) = await rows(database, handover_numbers)
    assert (recorded["number"], recorded["job_id"]) == (second, job_id)


@pytest.mark.parametrize("answer", [abort, lambda _: answering(502)()], ids=["none", "502"])
async def test_a_doubt_lasts_the_grace_period_unless_a_status_update_proves_the_arrival(
    database: Database, peer: FakePeer, dispatch: Dispatch, answer: Any
) -> None:
    job_id = await add_handover(database, doubts=7, attempts=7)

    async def behave(request: web.Request, _: Any) -> web.StreamResponse | None:
        return answer(request)

    peer.behave = behave
    async with dispatch(handover_grace=60.0):
        await until(database, handovers, in_doubt=1)
        row = await outbox_row(database, handovers, job_id)
        wait = (row["due_at"] - row["created_at"]).total_seconds()
        assert 60.0 <= wait < 110.0  # and not doubled with each doubt
        assert await hear(database, job_id) is not None
        await change(database, handovers, job_id, due_at=utc_now(-1.0))  # the grace period is over
        await add_handover(database, state="in_doubt", doubts=1)
        await eventually(lambda: len(peer.tried) == 2)  # another one, without proof
    assert await states(database, handovers) == ["done", "in_doubt"]
    assert peer.tried.count(job_id) == 1


async def test_a_peer_that_hangs_is_probed_and_its_call_is_in_doubt_when_the_stop_cuts_it_short(
    database: Database, peer: FakePeer, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await add_handover(database)
    stopped = asyncio.Event()

    async def hang(_: web.Request, __: Any) -> None:
        await stopped.wait()

    peer.behave = hang
    monkeypatch.setattr(maintenance, "PROBE_EVERY", 0.1)
    async with dispatch(handover_timeout=30.0, shutdown_grace=0.2):
        await eventually(lambda: bool(peer.tried))
        before = peer.probes
        await eventually(lambda: peer.probes >= before + 3)
    stopped.set()
    row = await outbox_row(database, handovers, job_id)
    assert (row["state"], row["doubts"]) == ("in_doubt", 1)


@pytest.mark.parametrize("fault", ["never", "garbage", "drips"])
async def test_a_job_that_gets_no_proper_answer_is_in_doubt_by_its_deadline_while_others_flow(
    database: Database, peer: FakePeer, dispatch: Dispatch, fault: str
) -> None:
    poisoned = await add_handover(database, priority=5)
    others = [await add_handover(database) for _ in range(50)]
    released = asyncio.Event()

    async def behave(request: web.Request, body: Any) -> web.StreamResponse | None:
        if body["job"]["meta"]["job_id"] != poisoned:
            return None
        if fault == "garbage":
            return web.Response(text='{"job": {', content_type="application/json", status=201)
        response = web.StreamResponse(status=201, headers={"Content-Type": "application/json"})
        if fault == "drips":
            await response.prepare(request)
            while not released.is_set():
                await response.write(b" ")
                await asyncio.sleep(0.1)
        await released.wait()
        return response

    peer.behave = behave
    async with dispatch(handover_timeout=3.0, handover_grace=60.0):
        # while the one is still being waited for
        await eventually(lambda: len(peer.taken) == len(others))
        await until(database, handovers, in_doubt=1, done=50)
        released.set()
    assert sorted(peer.taken) == others
    assert peer.tried.count(poisoned) == 1


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.json_response({"detail": "unauthorized"}, status=401),
        lambda: web.Response(text="<h1>Welcome</h1>", content_type="text/html"),
        lambda: web.Response(status=307, headers={"Location": "/login"}),
        lambda: web.json_response({"detail": "Not Found"}, status=404),
    ],
    ids=["key", "page", "redirect", "not found"],
)
async def test_an_operators_mistake_holds_everything_and_fails_no_job(
    database: Database, peer: FakePeer, dispatch: Dispatch, answer: Any
) -> None:
    job_ids = [await add_handover(database) for _ in range(40)]
    job_ids.append(await add_handover(database, state="held"))  # by another dispatcher
    peer.behave = numbered(dict.fromkeys(job_ids, answer))
    async with dispatch():
        await eventually(lambda: len(peer.tried) >= 12)  # what was under way, and two trials
        assert len(peer.tried) < 30
        assert metric("opencloud_handover_held") > 0
        peer.behave = None
        await until(database, handovers, done=41, within=20.0)
    assert sorted(peer.taken) == job_ids
    assert {(await job_row(database, job_id))["status"] for job_id in job_ids} == {"queued"}
    assert await rows(database, emails) == []


@pytest.mark.parametrize(("code", "count"), [(418, 1), (500, 12)], ids=["held", "never taken"])
async def test_jobs_that_the_peer_never_takes_hold_up_none_behind_them(
    database: Database, peer: FakePeer, dispatch: Dispatch, code: int, count: int
) -> None:
    poisoned = [await add_handover(database, priority=5 * (n % 2)) for n in range(count)]
    peer.behave = numbered(dict.fromkeys(poisoned, answering(code)))
    async with dispatch():
        await eventually(lambda: len(peer.tried) >= min(count, 10))
        others = [await add_handover(database) for _ in range(30)]
        await eventually(lambda: len(peer.taken) == len(others), within=30.0)
    assert sorted(peer.taken) == others


@pytest.mark.parametrize("count", [0, 50], ids=["no job", "jobs"])
async def test_a_peer_that_is_away_costs_a_trickle_and_gets_everything_on_its_return(
    database: Database, dispatch: Dispatch, count: int
) -> None:
    job_ids = [await add_handover(database) for _ in range(count)]
    port = free_port()
    async with dispatch(f"http://127.0.0.1:{port}") as admin:
        await eventually(lambda: _peer_is(admin, "open"))
        assert sum(row["attempts"] for row in await rows(database, handovers)) <= 16
        async with FakePeer().served(port) as peer:
            await eventually(lambda: _peer_is(admin, "closed"))
            job_ids.append(await add_handover(database))
            await eventually(lambda: all_done(database, handovers))
            assert sorted(peer.taken) == job_ids


@pytest.mark.parametrize("how", ["no connection", "HTTP 503"])
async def test_after_an_outage_jobs_arrive_in_the_order_of_their_submission(
    database: Database, dispatch: Dispatch, how: str
) -> None:
    submit = JobInsertion(database).one
    jobs = [(await submit(submission()))["id"] for _ in range(6)]
    port, peer = free_port(), FakePeer()
    peer.behave = always(answering(503))
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(dispatch(f"http://127.0.0.1:{port}"))
        if how == "HTTP 503":  # of one job after the other, which would not open the breaker
            await stack.enter_async_context(peer.served(port))
            await eventually(lambda: len(peer.tried) >= 3)
        else:
            await eventually(lambda: _peer_is(admin, "open"))
        jobs += [(await submit(submission()))["id"] for _ in range(3)]
        peer.behave = None
        if how == "no connection":
            await stack.enter_async_context(peer.served(port))
        await eventually(lambda: all_done(database, handovers), within=30.0)
    assert peer.taken == jobs


async def _peer_is(admin: TestServer, state: str) -> bool:
    report = await admin.app[HEALTH].report()
    return bool(report["peer"]["gate"] == state)


async def test_settled_hand_overs_are_kept_as_long_as_set_and_deletions_for_an_hour(
    database: Database, dispatch: Dispatch
) -> None:
    kept, pruned = [
        await add_handover(database, state="done", settled_at=utc_now(-age)) for age in (60, 180)
    ]
    deletion = {"job_id": 1, "user_id": "ada", "created_at": utc_now(-3_700)}
    async with database.transaction() as tx:
        await tx.execute(insert(job_deletions).values(deletion))

    async def is_forgotten() -> bool:
        return not await rows(database, job_deletions)

    async with dispatch(handover_retention=120.0):
        await until(database, handovers, done=1)
        await eventually(is_forgotten)
    assert (await outbox_row(database, handovers, kept))["state"] == "done"
    assert await job_row(database, pruned)  # its job stays


async def test_answers_under_idempotency_keys_are_pruned_once_they_are_old(
    database: Database, dispatch: Dispatch
) -> None:
    ages = {"kept": (60, None), "pruned": (180, None), "abandoned": (180, 120), "busy": (180, -60)}
    async with database.transaction() as tx:
        for key, (age, expired) in ages.items():
            busy_until = None if expired is None else utc_now(-expired)
            await tx.execute(
                insert(idempotency_keys).values(
                    user_id="ada",
                    key=key,
                    fingerprint="x",
                    created_at=utc_now(-age),
                    busy_until=busy_until,
                )
            )

    async def are_pruned() -> bool:
        return {row["key"] for row in await rows(database, idempotency_keys)} == {"kept", "busy"}

    async with dispatch(idempotency_retention=120.0):
        await eventually(are_pruned)
