"""Jobs described, listed, deleted."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from common.database.engine import Database
from devtools.postgres import run_apart
from gateway.jobs.schemas import HARDWARE_KEYS
from tests.support.gateway import APPLICATIONS, Api, on_both_databases, rows

pytestmark = on_both_databases

NO_HARDWARE = dict.fromkeys(HARDWARE_KEYS)
HUGE = ["99999999999", "9" * 30, "9" * 5000, "-" + "9" * 5000, str(2**31), str(2**63)]


def test_the_applications_are_answered_as_they_are(api: Api) -> None:
    assert api.get("/jobs/applications").json() == APPLICATIONS


def assert_gone(api: Api, job_id: Any) -> None:
    for method in ("GET", "DELETE"):
        reply = api.send(method, f"/jobs/{job_id}")
        assert (reply.status, reply.json()) == (404, {"detail": "Job not found"})


@pytest.mark.parametrize("job_id", ["0", "-1", "999999999", *HUGE], ids=lambda text: text[:12])
def test_unknown_jobs_are_not_found(api: Api, job_id: str) -> None:
    assert_gone(api, job_id)


@pytest.mark.parametrize("job_id", ["abc", "1.5", "1x", "1e3", "%00", "%ff", "..", "0x1", "%D9%A1"])
def test_an_id_is_an_integer(api: Api, job_id: str) -> None:
    for method in ("GET", "DELETE"):
        reply = api.send(method, f"/jobs/{job_id}")
        assert reply.faults() == {(("path", "job_id"), "int_parsing")}


def test_jobs_of_others_are_not_found(api: Api, other: Api) -> None:
    job = api.new_job()
    assert_gone(other, job["id"])
    assert other.get("/jobs").json() == []
    assert api.get(f"/jobs/{job['id']}").json() == job


def test_pages_are_newest_first_over_the_whole_set(api: Api) -> None:
    made = [api.new_job()["id"] for _ in range(7)]
    pages = [
        [job["id"] for job in api.get(f"/jobs?offset={offset}&limit=3").json()]
        for offset in (0, 3, 6, 9)
    ]
    assert pages == [made[:-4:-1], made[3:0:-1], made[:1], []]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 2), ("limit=0", 0), ("limit=1", 1), ("limit=1.0", 1), ("limit=10001", 2),
        ("limit=" + "9" * 5000, 2), ("offset=1", 1), ("offset=" + "9" * 25, 0),
        ("offset=" + "9" * 5000, 0), ("limit=1&other=x", 1),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_limits_and_offsets(api: Api, query: str, count: int) -> None:
    for _ in range(2):
        api.new_job()
    assert len(api.get(f"/jobs?{query}").json()) == count


@pytest.mark.parametrize("name", ["limit", "offset"])
@pytest.mark.parametrize(
    ("value", "kind"),
    [("a", "int_parsing"), ("", "int_parsing"), ("1.5", "int_parsing"), ("null", "int_parsing"),
     ("-1", "value_error")],
)  # fmt: skip
def test_limits_and_offsets_are_whole_numbers(api: Api, name: str, value: str, kind: str) -> None:
    assert api.get(f"/jobs?{name}={value}").faults() == {(("query", name), kind)}


def test_the_default_page_holds_a_hundred(api: Api) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: api.new_job()["id"], range(103)))
    assert [job["id"] for job in api.get("/jobs").json()] == sorted(made, reverse=True)[:100]


def test_deleting_removes_the_job_with_its_results_and_stops_its_worker(api: Api) -> None:
    job = api.new_job()
    assert api.report(job["id"], "running").status == 200
    for path in job["paths_out"].values():
        api.plant(f"{path}/deep/result")
    kept = api.plant("output/other/result")
    reply = api.delete(f"/jobs/{job['id']}")
    assert (reply.status, reply.body) == (204, b"")
    for path in job["paths_out"].values():
        assert not (api.tree / path).exists()
    assert kept.exists()
    for table in ("jobs", "handovers", "job_events", "emails"):
        column = "id" if table == "jobs" else "job_id"
        assert rows(api.gateway, f"SELECT 1 FROM {table} WHERE {column} = :id", id=job["id"]) == []
    assert_gone(api, job["id"])
    for status in ("running", "finished", "error"):
        assert api.report(job["id"], status).status == 404


def test_deleting_keeps_the_inputs(api: Api) -> None:
    api.plant_inputs()
    job = api.submit().json()
    api.delete(f"/jobs/{job['id']}")
    assert (api.tree / "data/exp/deep/more.tif").exists()
    assert (api.tree / "artifact/exp/model.pt").exists()


@pytest.mark.parametrize(
    ("column", "stored", "shown"),
    [
        ("environment", "any", None),
        ("hardware", "null", NO_HARDWARE),
        ("hardware", None, NO_HARDWARE),
        ("job_name", None, None),
        ("user_email", None, None),
    ],
)
def test_jobs_of_an_adopted_database_are_answered(api: Api, column, stored, shown) -> None:
    job = api.new_job()
    change(api, column, stored, job["id"])
    found = api.get(f"/jobs/{job['id']}").json()
    assert found == {**job, column: shown}


def change(api: Api, column: str, value: str | None, job_id: int) -> None:
    """Write to the database what an older deployment may have left there."""
    kind = {"environment": "environmenttypes", "hardware": "json"}.get(column, "varchar")

    async def write() -> None:
        database = Database(api.gateway.settings.database)
        cast = ":value" if database.is_sqlite else f"CAST(:value AS {kind})"
        statement = text(f"UPDATE jobs SET {column} = {cast} WHERE id = :id")
        try:
            async with database.transaction() as tx:
                await tx.execute(statement, {"value": value, "id": job_id})
        finally:
            await database.close()

    run_apart(write())
