"""`POST /jobs/{id}/repeat`."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import update

from common.database.tables import jobs
from tests.integration.gateway.jobs.test_idempotency import execute
from tests.support.gateway import (
    FRONTEND,
    Api,
    Reply,
    job_body,
    on_both_databases,
    payload_of,
)

pytestmark = on_both_databases

NO_INPUTS = {"files_down": {}}


def repeat(api: Api, job: Any, **changes: Any) -> Reply:
    return api.post(f"/jobs/{job['id']}/repeat", json=changes)


def repeated(api: Api, job: Any, **changes: Any) -> dict[str, Any]:
    reply = repeat(api, job, **changes)
    assert reply.status == 201, reply
    found: dict[str, Any] = reply.json()
    return found


def labels_of(api: Api, job: Any) -> dict[str, str]:
    found: dict[str, str] = api.get(f"/jobs/{job['id']}?details=true").json()["labels"]
    return found


def submitted(job: Any) -> dict[str, Any]:
    """What a job was submitted with, but its name."""
    parts = ("environment", "priority", "application", "attributes", "hardware")
    return {part: job[part] for part in parts}


def test_a_job_is_repeated_as_it_was_submitted(api: Api) -> None:
    api.plant_inputs()
    job = api.submit(
        job_name="train",
        priority=3,
        environment="cloud",
        labels={"exp": "7"},
        hardware={"memory": 4},
    ).json()
    before = payload_of(api, job["id"])
    api.report(job["id"], "error", "traceback")
    reply = api.post(f"/jobs/{job['id']}/repeat", headers={"Origin": FRONTEND})
    assert reply.status == 201, reply
    assert reply.headers["link"] == f'</jobs/{job["id"]}>; rel="original"'
    assert "Link" in reply.headers["access-control-expose-headers"].split(", ")
    again = reply.json()
    assert (again["job_name"], again["status"], again["runtime_details"]) == (
        "train-2",
        "queued",
        None,
    )
    assert submitted(again) == submitted(job)
    assert labels_of(api, again) == {"exp": "7"}
    after = payload_of(api, again["id"])
    assert after["job"]["handler"] == before["job"]["handler"]
    assert after["paths_upload"] != before["paths_upload"]
    detailed = api.get(f"/jobs/{again['id']}?details=true").json()
    assert (detailed["repeated_from"], detailed["batch_id"]) == (job["id"], None)
    (event,) = api.get(f"/jobs/{again['id']}/events").json()
    assert (event["type"], event["status"]) == ("status", "queued")


def test_a_body_replaces_parts_key_by_key(api: Api) -> None:
    api.plant_inputs()
    job = api.submit(
        job_name="train", labels={"exp": "7", "kind": "a"}, hardware={"memory": 4}
    ).json()
    again = repeated(
        api,
        job,
        job_name="other",
        priority=5,
        labels={"kind": "b"},
        hardware={"cpu_cores": 2},
        attributes={"env_vars": {"OTHER_KEY": "x"}, "files_down": {"artifact_ids": None}},
        unknown="ignored",
    )
    assert (again["job_name"], again["priority"]) == ("other", 5)
    assert (again["hardware"]["memory"], again["hardware"]["cpu_cores"]) == (4, 2)
    assert again["attributes"]["env_vars"] == {"KEY": "value", "OTHER_KEY": "x"}
    assert again["attributes"]["files_down"]["data_ids"] == ["exp"]
    assert again["attributes"]["files_down"]["artifact_ids"] is None
    assert labels_of(api, again) == {"exp": "7", "kind": "b"}
    assert labels_of(api, repeated(api, job, labels=None)) == {}


def test_the_next_number_that_no_job_and_no_results_have_is_taken(api: Api) -> None:
    job = api.new_job(job_name="x")
    api.new_job(job_name="x-3")
    api.plant("log/x-4/file")
    (api.tree / "output/x-5").mkdir(parents=True, exist_ok=True)  # holds no files
    names = [repeated(api, job)["job_name"] for _ in range(3)]
    assert names == ["x-2", "x-5", "x-6"]
    assert repeated(api, api.get("/jobs?limit=1").json()[0])["job_name"] == "x-7"
    gone = api.new_job(job_name="y")
    api.delete(f"/jobs/{repeated(api, gone)['id']}")
    assert repeated(api, gone)["job_name"] == "y-2"


def test_a_name_without_room_is_shortened(api: Api) -> None:
    job = api.new_job(job_name="é" * 127)
    assert repeated(api, job)["job_name"] == "é" * 126 + "-2"


def test_repetitions_at_once_all_succeed_under_names_of_their_own(api: Api) -> None:
    job = api.new_job(job_name="race")
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: repeated(api, job)["job_name"], range(12)))
    assert sorted(found) == sorted(f"race-{number}" for number in range(2, 14))


def test_a_chosen_name_is_as_for_any_job(api: Api) -> None:
    job = api.new_job(job_name="train")
    taken = repeat(api, job, job_name="train")
    assert (taken.status, taken.detail) == (409, "Job name must be unique")
    api.plant("output/used/file")
    assert repeat(api, job, job_name="used").status == 409
    assert {where for where, _ in repeat(api, job, job_name="a/b").faults()} == {
        ("body", "job_name")
    }


def test_jobs_of_others_are_not_found(api: Api, other: Api) -> None:
    job = api.new_job()
    deleted = api.new_job()
    api.delete(f"/jobs/{deleted['id']}")
    for target in (job["id"], deleted["id"], 0, -1, 999_999_999, 2**70):
        reply = other.post(f"/jobs/{target}/repeat")
        assert (reply.status, reply.detail) == (404, "Job not found")
    assert api.post(f"/jobs/{deleted['id']}/repeat").status == 404
    ((where, _),) = api.post("/jobs/x/repeat").faults()
    assert where == ("path", "job_id")


def test_inputs_are_looked_up_afresh(api: Api) -> None:
    api.plant_inputs()
    job = api.submit().json()
    api.plant("data/exp/late.tif")
    files = payload_of(api, repeated(api, job)["id"])["job"]["handler"]["files_down"]
    assert any(path.endswith("late.tif") for path in files)
    assert api.delete("/files/config/exp/").status == 204
    reply = repeat(api, job)
    assert reply.status == 400
    assert reply.detail.startswith("The input 'config/exp' does not exist")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"priority": 9}, ("priority",)),
        ({"application": {"version": "v9"}}, ("application", "version")),
        ({"application": {"entrypoint": "fit"}}, ("attributes",)),
        ({"attributes": {"files_down": {"data_ids": [".."]}}}, (
            "attributes", "files_down", "data_ids", 0,
        )),
        ({"attributes": None}, ("attributes",)),
        ({"job_name": None}, ("job_name",)),
        ({"labels": {"!": "x"}}, ("labels", "!")),
        ([], ()),
    ],
)  # fmt: skip
def test_a_wrong_part_is_refused_at_its_place(
    api: Api, changes: Any, place: tuple[Any, ...]
) -> None:
    api.plant_inputs()
    job = api.submit().json()
    reply = api.post(f"/jobs/{job['id']}/repeat", json=changes)
    assert {where for where, _ in reply.faults()} == {("body", *place)}


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"job_name": None}, ("job_name",)),
        ({"job_name": "../../other"}, ("job_name",)),
        (
            {"application": {"application": "gone", "version": "v1", "entrypoint": "train"}},
            ("application", "application"),
        ),
        ({"application": "odd"}, ("application",)),
        ({"attributes": []}, ("attributes",)),
        ({"priority": 77}, ("priority",)),
    ],
)
def test_a_job_of_an_earlier_service_that_no_job_can_be_like_is_refused_at_its_place(
    api: Api, values: dict[str, Any], place: tuple[Any, ...]
) -> None:
    job = api.new_job()
    execute(api, update(jobs).where(jobs.c.id == job["id"]).values(values))
    assert {where for where, _ in repeat(api, job).faults()} == {("body", *place)}


def test_a_job_of_an_earlier_service_is_repeated_if_it_can_be(api: Api) -> None:
    job = api.new_job()
    odd = {"hardware": None, "environment": "any", "job_name": None, "date_created": None}
    execute(api, update(jobs).where(jobs.c.id == job["id"]).values(odd))
    again = repeated(api, job, job_name="new")
    assert (again["environment"], set(again["hardware"].values())) == (None, {None})


def test_a_repetition_may_name_another_application(api: Api) -> None:
    job = api.new_job()
    fit = job_body()["application"] | {"entrypoint": "flat"}
    execute(
        api,
        update(jobs)
        .where(jobs.c.id == job["id"])
        .values(application={**fit, "application": "gone"}, attributes=NO_INPUTS),
    )
    assert repeated(api, job, application=fit)["application"] == fit
