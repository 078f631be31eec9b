"""What `details=true` shows of jobs, alone and in pages."""

from typing import Any

import pytest
from sqlalchemy import delete, update

from common.database.tables import handovers, jobs
from tests.integration.gateway.jobs.test_cancel import change
from tests.support.gateway import Api, on_both_databases

pytestmark = on_both_databases


def detailed(api: Api, job_id: int) -> dict[str, Any]:
    """The job with its details, which a page shows as well, and which only adds to the job."""
    found: dict[str, Any] = api.get(f"/jobs/{job_id}?details=true").json()
    page = api.get("/jobs?details=true&limit=1000").json()
    assert found == next(job for job in page if job["id"] == job_id)
    plain = api.get(f"/jobs/{job_id}?details=false").json()
    assert found == {**plain, **{key: found[key] for key in found.keys() - plain.keys()}}
    return found


def test_a_new_job_waits(api: Api) -> None:
    job = api.new_job(labels={"b": "", "a": "1"})
    found = detailed(api, job["id"])
    assert {key: found[key] for key in found.keys() - job.keys()} == {
        "labels": {"a": "1", "b": ""},
        "batch_id": None,
        "repeated_from": None,
        "cancelled": None,
        "last_seen_at": None,
        "handover": {"state": "waiting", "attempts": 0},
    }


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("pending", "waiting"),
        ("held", "waiting"),
        ("sending", "sent"),
        ("in_doubt", "sent"),
        ("done", "taken"),
        ("failed", "refused"),
        ("dropped", "dropped"),
    ],
)
def test_a_hand_over_is_shown_by_what_users_know_of_it(api: Api, stored: str, shown: str) -> None:
    job = api.new_job()["id"]
    change(
        api,
        update(handovers).where(handovers.c.job_id == job).values(state=stored, attempts=3),
        update(jobs).where(jobs.c.id == job).values(batch_id=4, repeated_from=2),
    )
    found = detailed(api, job)
    assert found["handover"] == {"state": shown, "attempts": 3}
    assert (found["batch_id"], found["repeated_from"]) == (4, 2)


def test_a_job_that_runs_was_taken_and_seen(api: Api) -> None:
    job = api.new_job()["id"]
    api.report(job, "running")
    found = detailed(api, job)
    assert found["handover"]["state"] == "taken"
    assert found["last_seen_at"] >= found["date_started"]


def test_a_cancellation_shows_by_whom_why_when_and_whether_the_worker_knows(api: Api) -> None:
    job = api.new_job()
    api.post(f"/jobs/{job['id']}/cancel", json={"reason": "wrong file"})
    found = detailed(api, job["id"])
    assert found["cancelled"] == {
        "by": job["user_email"] or job["user_id"],
        "reason": "wrong file",
        "date": found["date_finished"],
        "confirmed": None,
    }
    assert found["handover"]["state"] == "dropped"
    api.report(job["id"], "running")
    confirmed = detailed(api, job["id"])["cancelled"]["confirmed"]
    assert confirmed >= found["date_finished"]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"status": "finished", "worker_number": 1}, "taken"),
        ({"status": "error", "worker_number": 1}, "taken"),
        ({"status": "error"}, "refused"),
        ({"status": "error", "cancelled_at": jobs.c.date_created, "cancelled_by": "x"}, "dropped"),
        ({"status": "queued"}, "taken"),
        ({"status": "error", "correlation_id": None}, "taken"),
    ],
)
def test_a_hand_over_that_is_pruned_or_was_another_services_is_inferred(
    api: Api, values: dict[str, Any], shown: str
) -> None:
    job = api.new_job()["id"]
    change(
        api,
        delete(handovers).where(handovers.c.job_id == job),
        update(jobs).where(jobs.c.id == job).values(values),
    )
    assert detailed(api, job)["handover"]["state"] == shown


def test_details_of_long_jobs_and_long_pages_are_whole(api: Api) -> None:
    made = {api.new_job(labels={"n": str(number)})["id"]: str(number) for number in range(30)}
    for job in list(made)[::4]:
        api.report(job, "error", "x" * 20_000)
    page = api.get("/jobs?details=true").json()
    assert {job["id"]: job["labels"]["n"] for job in page} == made
    assert all(detailed(api, job)["labels"] == {"n": made[job]} for job in list(made)[:2])
