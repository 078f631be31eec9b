"""Events of jobs, listed, streamed, and waited for."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from common.database.notify import EVENTS, listen
from common.runtime.tasks import in_background
from devtools.postgres import run_apart
from devtools.waiting import eventually
from gateway.jobs.events.handlers import EVENTS as JOB_EVENTS
from tests.support.gateway import Api, on_both_databases, rows
from tests.support.streams import Stream, streaming

pytestmark = on_both_databases


def shown(event: dict[str, Any]) -> tuple[str, str, str | None, str]:
    return event["type"], event["status"], event["details"], event["source"]


def events_of(api: Api, job_id: int, query: str = "") -> list[dict[str, Any]]:
    reply = api.get(f"/jobs/{job_id}/events{query}")
    assert reply.status == 200, reply
    found: list[dict[str, Any]] = reply.json()
    return found


def run(api: Api, job_id: int) -> None:
    """Report what a worker reports of a job that fails."""
    for status, details in [
        ("running", ""),
        ("running", "epoch 1"),
        ("running", "epoch 1"),  # repeated
        ("running", ""),
        ("error", None),
        ("postprocessing", ""),
        ("error", "traceback"),
    ]:
        assert api.report(job_id, status, details).status == 200


def test_a_jobs_events_are_what_changed_in_order(api: Api) -> None:
    job = api.new_job()
    run(api, job["id"])
    found = events_of(api, job["id"])
    assert [shown(event) for event in found] == [
        ("status", "queued", None, "user"),
        ("status", "running", None, "worker"),
        ("details", "running", "epoch 1", "worker"),
        ("status", "error", None, "worker"),
        ("details", "error", "traceback", "worker"),
    ]
    ids = [event["id"] for event in found]
    assert ids == sorted(set(ids))
    assert {(event["job_id"], event["job_name"]) for event in found} == {
        (job["id"], job["job_name"])
    }
    assert found[0]["date"] >= job["date_created"]
    assert events_of(api, job["id"], f"?after={ids[2]}&limit=2") == found[3:5]
    assert events_of(api, job["id"], "?limit=0") == []
    assert events_of(api, job["id"], f"?after={ids[-1]}&limit=99999") == []
    assert events_of(api, job["id"], f"?after={2**70}") == []


def test_events_of_others_and_of_deleted_jobs_are_not_found(api: Api, other: Api) -> None:
    job = api.new_job()
    assert other.get(f"/jobs/{job['id']}/events").status == 404
    assert api.get("/jobs/999999999/events").status == 404
    assert api.get(f"/jobs/{2**80}/events").status == 404
    api.delete(f"/jobs/{job['id']}")
    assert api.get(f"/jobs/{job['id']}/events").detail == "Job not found"


@pytest.mark.parametrize("value", ["x", "1.5", "", "-1"])
def test_a_cursor_is_a_whole_number(api: Api, value: str) -> None:
    for target in ("/jobs/events", f"/jobs/{api.new_job()['id']}/events"):
        (where, _), *more = api.get(f"{target}?after={value}").faults()
        assert (where, more) == (("query", "after"), [])
    headers = {"Last-Event-ID": value}
    ((where, _),) = api.get("/jobs/events", headers=headers).faults()
    assert where == ("header", "last-event-id")
    ((where, _),) = api.get(f"/jobs/events?job={value or 'y'}x").faults()
    assert where == ("query", "job")


def test_a_stream_begins_now_and_shows_each_change_once(api: Api, other: Api) -> None:
    api.new_job()
    with streaming(api) as stream, streaming(other) as foreign:
        job = api.new_job()
        run(api, job["id"])
        listed = events_of(api, job["id"])
        assert [stream.event() for _ in listed] == listed
        mine = other.new_job()
        assert foreign.event()["job_id"] == mine["id"]


def test_a_stream_goes_on_after_the_last_event_that_is_known(api: Api) -> None:
    jobs = [api.new_job() for _ in range(3)]
    with streaming(api, "?after=0") as stream:
        events = [stream.event() for _ in jobs]
        assert [event["job_id"] for event in events] == [job["id"] for job in jobs]
    run(api, jobs[0]["id"])
    last = {"Last-Event-ID": str(events[1]["id"])}
    with streaming(api, "?after=0", last) as stream:
        assert stream.event() == events[2]
        assert [stream.event() for _ in range(4)] == events_of(api, jobs[0]["id"])[1:]


def test_a_stream_of_some_jobs_shows_no_others(api: Api, other: Api) -> None:
    first, second, third = [api.new_job()["id"] for _ in range(3)]
    foreign = other.new_job()["id"]
    query = f"?after=0&job={first}&job={third}&job={foreign}&job=999999999"
    with streaming(api, query) as stream:
        for job in (second, third, first):
            api.report(job, "running")
        seen = [stream.event() for _ in range(4)]
    assert [(event["job_id"], event["status"]) for event in seen] == [
        (first, "queued"),
        (third, "queued"),
        (third, "running"),
        (first, "running"),
    ]


def test_a_deletion_is_announced_once_and_neither_it_nor_the_events_are_replayed(
    api: Api,
) -> None:
    kept, gone = api.new_job()["id"], api.new_job()["id"]
    with streaming(api, "?after=0") as stream:
        assert [stream.event()["job_id"] for _ in range(2)] == [kept, gone]
        api.delete(f"/jobs/{gone}")
        assert stream.frame() == {"event": "deleted", "data": f'{{"job_id":{gone}}}'}
        api.report(kept, "running")
        assert stream.event()["status"] == "running"
    with streaming(api, "?after=0") as stream:
        assert [stream.event()["job_id"] for _ in range(2)] == [kept, kept]
        api.report(kept, "finished")
        assert stream.event()["status"] == "finished"


def label(api: Api, job_id: int, value: str) -> None:
    rows(
        api.gateway,
        "INSERT INTO job_labels (job_id, user_id, key, value) VALUES (:job, :user, 'exp', :value)"
        " RETURNING job_id",
        job=job_id,
        user=api.user,
        value=value,
    )


def test_a_stream_of_a_label_shows_its_jobs_and_their_deletion(api: Api) -> None:
    jobs = [api.new_job()["id"] for _ in range(3)]
    for job, value in zip(jobs, ("7", "8"), strict=False):
        label(api, job, value)
    with streaming(api, "?label=exp:7") as stream, streaming(api, "?label=exp") as any_value:
        for job in jobs:
            api.report(job, "running")
        assert stream.event()["job_id"] == jobs[0]
        assert [any_value.event()["job_id"] for _ in range(2)] == jobs[:2]
        for job in reversed(jobs):
            api.delete(f"/jobs/{job}")
        assert stream.frame() == {"event": "deleted", "data": f'{{"job_id":{jobs[0]}}}'}
        assert [any_value.frame()["event"] for _ in range(2)] == ["deleted"] * 2


def test_every_change_is_announced_with_its_user(api: Api) -> None:
    database = api.gateway.settings.database
    if database.is_sqlite:
        pytest.skip("SQLite announces nothing")

    async def changed() -> None:
        payloads: asyncio.Queue[str] = asyncio.Queue()
        job = 0

        def submit() -> None:
            nonlocal job
            job = api.new_job()["id"]

        changes: list[Callable[[], object]] = [
            submit,
            lambda: api.report(job, "running"),
            lambda: api.post(f"/jobs/{job}/cancel"),
            lambda: api.report(job, "running"),  # its worker is stopped
            lambda: api.delete(f"/jobs/{job}"),
        ]
        async with (
            asyncio.timeout(60),
            in_background(listen(database, EVENTS, payloads.put_nowait)),
        ):
            assert await payloads.get() == ""  # connected
            for change in changes:
                await asyncio.to_thread(change)
                while api.user not in (await payloads.get()).split("\n"):
                    pass

    run_apart(changed())


def test_a_stream_is_neither_stored_nor_buffered_on_its_way(api: Api) -> None:
    with streaming(api) as stream:
        assert stream.answer.headers["Cache-Control"] == "no-store"
        assert stream.answer.headers["X-Accel-Buffering"] == "no"


def test_ten_streams_at_once_and_the_next_one_is_refused(api: Api, other: Api) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(streaming(api)) for _ in range(10)]
        refused = Stream(api)
        assert refused.answer.status == 429
        assert int(refused.answer.headers["Retry-After"]) >= 1
        refused.close()
        stack.enter_context(streaming(other))
        streams[0].close()

        def reopened() -> bool:
            stream = Stream(api)
            stack.callback(stream.close)
            return stream.answer.status == 200

        run_apart(eventually(reopened))


def test_the_front_end_may_stream_by_its_cookie(api: Api) -> None:
    browser = Api(api.gateway, headers={"Cookie": f'Authorization="Bearer {api.token}"'})
    with streaming(browser) as stream:
        job = api.new_job()
        assert stream.event()["job_id"] == job["id"]


def waiting(api: Api, pool: ThreadPoolExecutor, job_id: int, seconds: int) -> Future[Any]:
    """A request that follows its user's events by now."""
    assert api.gateway.app is not None
    followed = api.gateway.app[JOB_EVENTS]._feed._followed

    def followers() -> int:
        return len(followed[api.user].followers) if api.user in followed else 0

    before = followers()
    answer = pool.submit(lambda: api.get(f"/jobs/{job_id}?wait={seconds}"))
    run_apart(eventually(lambda: followers() > before))
    return answer


def test_a_request_that_waits_is_answered_when_the_status_changes(api: Api) -> None:
    job = api.new_job()
    with ThreadPoolExecutor() as pool, streaming(api) as stream:
        answer = waiting(api, pool, job["id"], 30)
        api.new_job()
        stream.event()
        api.report(job["id"], "queued", "only details")
        stream.event()
        assert not answer.done()
        api.report(job["id"], "running")
        found = answer.result(timeout=20).json()
    assert found["status"] == "running"
    assert found == api.get(f"/jobs/{job['id']}").json()


def test_a_request_that_waits_is_answered_after_its_time_or_at_once_for_an_ended_job(
    api: Api,
) -> None:
    job = api.new_job()
    began = time.monotonic()
    assert api.get(f"/jobs/{job['id']}?wait=1").json() == job
    assert time.monotonic() - began > 0.99  # clocks of milliseconds
    api.report(job["id"], "finished")
    began = time.monotonic()
    assert api.get(f"/jobs/{job['id']}?wait=60").json()["status"] == "finished"
    assert time.monotonic() - began < 30
    assert api.get("/jobs/999999999?wait=5").status == 404


def test_a_request_that_waits_for_a_job_that_is_deleted_is_answered_with_404(api: Api) -> None:
    job = api.new_job()
    with ThreadPoolExecutor() as pool:
        answer = waiting(api, pool, job["id"], 30)
        api.delete(f"/jobs/{job['id']}")
        assert answer.result(timeout=20).status == 404


@pytest.mark.parametrize("value", ["61", "-1", "x"])
def test_the_time_to_wait_is_bounded(api: Api, value: str) -> None:
    ((where, _),) = api.get(f"/jobs/{api.new_job()['id']}?wait={value}").faults()
    assert where == ("query", "wait")
