"""Cancelling jobs over HTTP."""

from typing import Any

import pytest
from sqlalchemy import insert, update

from common.database.engine import Database
from common.database.tables import job_labels, jobs
from devtools.postgres import run_apart
from tests.support.gateway import Api, on_both_databases
from tests.support.streams import streaming

pytestmark = on_both_databases


def change(api: Api, *statements: Any) -> None:
    """Change rows past the API."""

    async def run() -> None:
        database = Database(api.gateway.settings.database)
        try:
            async with database.transaction() as tx:
                for statement in statements:
                    await tx.execute(statement)
        finally:
            await database.close()

    run_apart(run())


@pytest.mark.parametrize(
    ("sent", "ending"),
    [
        ({}, ""),
        ({"json": {}}, ""),
        ({"json": {"reason": None}}, ""),
        ({"json": {"reason": "wrong file"}}, ": wrong file"),
    ],
)
def test_a_cancelled_job_is_an_error_with_a_date_and_a_line(
    api: Api, sent: dict[str, Any], ending: str
) -> None:
    job = api.new_job()
    reply = api.post(f"/jobs/{job['id']}/cancel", **sent)
    assert reply.status == 202, reply
    found = reply.json()
    assert found == api.get(f"/jobs/{job['id']}").json()
    assert (found["status"], found["date_started"]) == ("error", None)
    assert found["date_finished"] >= job["date_created"]
    assert found["runtime_details"] == f"Cancelled by {job['user_email'] or job['user_id']}{ending}"
    again = api.post(f"/jobs/{job['id']}/cancel", json={"reason": "another"})
    assert (again.status, again.json()) == (202, found)


def test_the_worker_of_a_cancelled_job_is_stopped_and_a_stream_shows_it(api: Api) -> None:
    job = api.new_job()["id"]
    assert api.report(job, "running").status == 200
    with streaming(api) as stream:
        api.post(f"/jobs/{job}/cancel")
        before = api.get(f"/jobs/{job}").json()
        for status in ("running", "running", "finished", "error"):
            assert api.report(job, status, "words").status == 404
        seen = [stream.event() for _ in range(2)]
        other = api.new_job()["id"]
        assert stream.event()["job_id"] == other
    assert [(e["type"], e["status"], e["source"]) for e in seen] == [
        ("cancel", "error", "user"),
        ("cancelled", "error", "worker"),
    ]
    assert api.get(f"/jobs/{job}").json() == before
    assert api.report(other, "running").status == 200


@pytest.mark.parametrize("status", ["finished", "error"])
def test_a_job_that_has_ended_otherwise_is_not_cancelled(api: Api, status: str) -> None:
    job = api.new_job()["id"]
    api.report(job, status, "the end")
    before = api.get(f"/jobs/{job}").json()
    reply = api.post(f"/jobs/{job}/cancel")
    assert (reply.status, reply.detail) == (409, "The job has ended already")
    assert api.get(f"/jobs/{job}").json() == before


def test_jobs_of_others_are_not_found(api: Api, other: Api) -> None:
    job = api.new_job()["id"]
    for target in (job, 0, -1, 999_999_999, 2**70):
        assert other.post(f"/jobs/{target}/cancel").status == 404
    assert api.get(f"/jobs/{job}").json()["status"] == "queued"
    reply = other.post("/jobs/cancel", json={"ids": [job, 2**70]})
    assert reply.json() == [
        {"id": job, "result": "not_found"},
        {"id": 2**70, "result": "not_found"},
    ]


def test_many_are_cancelled_by_their_ids_in_that_order(api: Api) -> None:
    first, ended, third, cancelled = [api.new_job()["id"] for _ in range(4)]
    api.report(ended, "finished")
    api.post(f"/jobs/{cancelled}/cancel")
    wanted = {"ids": [third, ended, 999_999_999, first, cancelled], "reason": "all wrong"}
    reply = api.post("/jobs/cancel", json=wanted)
    assert (reply.status, reply.json()) == (
        200,
        [
            {"id": third, "result": "cancelled"},
            {"id": ended, "result": "ended"},
            {"id": 999_999_999, "result": "not_found"},
            {"id": first, "result": "cancelled"},
            {"id": cancelled, "result": "cancelled"},
        ],
    )
    assert api.get(f"/jobs/{first}").json()["runtime_details"].endswith(": all wrong")
    assert not api.get(f"/jobs/{cancelled}").json()["runtime_details"].endswith(": all wrong")


def test_many_are_cancelled_by_a_label_or_a_batch(api: Api, other: Api) -> None:
    one, two, three = [api.new_job()["id"] for _ in range(3)]
    foreign = other.new_job()["id"]
    labels = [(one, "7"), (two, "8"), (foreign, "7")]
    change(
        api,
        *(
            insert(job_labels).values(
                job_id=job,
                key="exp",
                value=value,
                user_id=other.user if job == foreign else api.user,
            )
            for job, value in labels
        ),
        update(jobs).where(jobs.c.id.in_([three, foreign])).values(batch_id=4),
    )
    for wanted, found in [
        ({"label": "exp:9"}, []),
        ({"label": "other"}, []),
        ({"batch_id": 5}, []),
        ({"batch_id": 2**70}, []),
        ({"label": "exp:7"}, [one]),
        ({"label": "exp"}, [one, two]),
        ({"batch_id": 4}, [three]),
    ]:
        reply = api.post("/jobs/cancel", json=wanted)
        assert reply.status == 200
        assert reply.json() == [{"id": job, "result": "cancelled"} for job in found]
    assert other.get(f"/jobs/{foreign}").json()["status"] == "queued"


@pytest.mark.parametrize(
    ("target", "body", "where"),
    [
        ("/jobs/cancel", {}, ("body",)),
        ("/jobs/cancel", {"ids": [1], "label": "x"}, ("body",)),
        ("/jobs/cancel", {"reason": "x"}, ("body",)),
        ("/jobs/cancel", {"ids": [*range(1_001)]}, ("body", "ids")),
        ("/jobs/cancel", {"ids": ["x"]}, ("body", "ids", 0)),
        ("/jobs/cancel", {"ids": [1], "reason": "x" * 1_001}, ("body", "reason")),
        ("/jobs/{}/cancel", {"reason": "x" * 1_001}, ("body", "reason")),
        ("/jobs/{}/cancel", {"reason": "a\x1b[2Jb"}, ("body", "reason")),
        ("/jobs/{}/cancel", {"reason": 7}, ("body", "reason")),
        ("/jobs/{}/cancel", [], ("body",)),
    ],
)
def test_a_wrong_request_is_refused_at_its_place(
    api: Api, target: str, body: Any, where: tuple[Any, ...]
) -> None:
    job = api.new_job()["id"]
    found = api.post(target.format(job), json=body).faults()
    assert {place for place, _ in found} == {where}
    assert api.get(f"/jobs/{job}").json()["status"] == "queued"


@pytest.mark.parametrize("text", ["wrong\nfile", "wrong\0file", "\x1b[31mwrong", "x" * 1_001])
def test_a_reason_has_no_control_characters(api: Api, text: str) -> None:
    for target in (f"/jobs/{api.new_job()['id']}/cancel", "/jobs/cancel"):
        reply = api.post(target, json={"ids": [1], "reason": text})
        assert reply.faults() == {(("body", "reason"), "value_error")}
