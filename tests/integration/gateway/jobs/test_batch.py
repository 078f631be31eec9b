"""`POST /jobs/batch`."""

import asyncio
from typing import Any

import orjson
import pytest

from common.database.engine import Database
from common.database.tables import handovers, job_batches, job_events, jobs
from devtools.database import database_settings
from devtools.user_pool import Issuer
from gateway.files.handlers import STORAGE
from gateway.jobs.errors import BatchNameTaken, TooManyUnfinished
from gateway.jobs.insertion import JobInsertion
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import (
    Api,
    Gateway,
    Reply,
    fresh,
    job_body,
    on_both_databases,
    on_both_storages,
    payload_of,
)
from tests.support.records import rows as all_rows
from tests.support.records import submission

NO_INPUTS = {"files_down": {}}


def start(api: Api, *submissions: Any, **more: Any) -> Reply:
    return api.post("/jobs/batch", json={"jobs": list(submissions), **more})


def template(**changes: Any) -> dict[str, Any]:
    return job_body(**{"job_name": ..., "attributes": NO_INPUTS, **changes})


def named(*names: str) -> list[dict[str, Any]]:
    return [{"job_name": name} for name in names]


def count_jobs(api: Api) -> int:
    return len(api.get("/jobs?limit=1000").json())


@on_both_databases
def test_all_jobs_are_started_in_their_order_as_one_batch(api: Api) -> None:
    names = [fresh("job") for _ in range(20)]
    reply = start(api, *(job_body(job_name=name, attributes=NO_INPUTS) for name in names))
    assert reply.status == 201, reply
    batch = reply.json()
    assert set(batch) == {"batch_id", "jobs"}
    assert [job["job_name"] for job in batch["jobs"]] == names
    ids = [job["id"] for job in batch["jobs"]]
    assert ids == sorted(ids)
    for job in batch["jobs"]:
        assert api.get(f"/jobs/{job['id']}").json() == job
        (event,) = api.get(f"/jobs/{job['id']}/events").json()
        assert (event["type"], event["status"], event["source"]) == ("status", "queued", "user")
        assert payload_of(api, job["id"])["paths_upload"]["log"].endswith(job["job_name"])
    second = start(api, job_body(attributes=NO_INPUTS)).json()
    assert second["batch_id"] > batch["batch_id"]
    found = api.get(f"/jobs?batch_id={batch['batch_id']}&sort=date_created").json()
    assert [job["id"] for job in found] == ids
    cancelled = api.post("/jobs/cancel", json={"batch_id": batch["batch_id"]}).json()
    assert [one["id"] for one in cancelled] == ids


@on_both_databases
def test_jobs_complete_and_replace_the_template_key_by_key(api: Api) -> None:
    api.plant_inputs()
    common = job_body(job_name="common", priority=1, labels={"exp": "7", "kind": "a"})
    common["hardware"] = {"memory": 4}
    first, second, third = start(
        api,
        {"job_name": "first"},
        {
            "job_name": "second",
            "priority": 2,
            "labels": {"kind": "b"},
            "hardware": {"cpu_cores": 2},
            "attributes": {"files_down": {"data_ids": []}, "env_vars": {"OTHER_KEY": "x"}},
        },
        {"hardware": None, "labels": None, "environment": "cloud"},
        template=common,
    ).json()["jobs"]
    assert (first["priority"], first["hardware"]["memory"]) == (1, 4)
    assert (second["priority"], second["environment"]) == (2, None)
    assert (second["hardware"]["memory"], second["hardware"]["cpu_cores"]) == (4, 2)
    assert second["attributes"] == {
        "files_down": {"config_id": "exp", "data_ids": [], "artifact_ids": ["exp"]},
        "env_vars": {"KEY": "value", "OTHER_KEY": "x"},
    }
    assert (third["job_name"], third["environment"]) == ("common", "cloud")
    assert third["hardware"]["memory"] is None
    labels = [
        api.get(f"/jobs/{job['id']}?details=true").json()["labels"]
        for job in (first, second, third)
    ]
    assert labels == [{"exp": "7", "kind": "a"}, {"exp": "7", "kind": "b"}, {}]


@on_both_storages
def test_inputs_are_those_of_single_submissions(api: Api) -> None:
    for path in ("config/exp/param.yaml", "data/exp/deep/more.tif", "artifact/exp/model.pt"):
        directory, _, name = path.rpartition("/")
        assert api.upload(directory, name).status == 201
    single = api.submit().json()["id"]
    many = start(api, *named("a", "b"), template=job_body(job_name=...)).json()["jobs"]
    handler = payload_of(api, single)["job"]["handler"]
    assert handler["files_down"]
    assert [payload_of(api, job["id"])["job"]["handler"] for job in many] == [handler, handler]


@on_both_databases
@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"job_name": "a/b"}, ("job_name",)),
        ({"priority": 9}, ("priority",)),
        ({"labels": {"!": "x"}}, ("labels", "!")),
        ({"application": {"version": "v9"}}, ("application", "version")),
        ({"attributes": {"env_vars": {"NO": "x"}}}, ("attributes",)),
        ({"attributes": {"files_down": {"data_ids": ["a", ".."]}}}, None),
        ({"attributes": None}, ("attributes",)),
        ({"job_name": None}, ("job_name",)),
    ],
)
def test_a_fault_is_reported_at_its_job_and_none_is_started(
    api: Api, change: dict[str, Any], place: tuple[str, ...] | None
) -> None:
    place = place or ("attributes", "files_down", "data_ids", 1)
    wrong = {"job_name": "c", **change}
    reply = start(
        api, *named("a", "b"), wrong, {"job_name": "d", "priority": -1}, template=template()
    )
    found = {where for where, _ in reply.faults()}
    assert found == {("body", "jobs", 2, *place), ("body", "jobs", 3, "priority")}
    assert count_jobs(api) == 0


def test_a_fault_of_the_template_is_reported_at_the_jobs_that_keep_it(api: Api) -> None:
    reply = start(
        api, {"job_name": "a"}, {"job_name": "b", "priority": 1}, template=template(priority=9)
    )
    assert {where for where, _ in reply.faults()} == {("body", "jobs", 0, "priority")}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ("jobs",)),
        ({"jobs": []}, ("jobs",)),
        ({"jobs": {}}, ("jobs",)),
        ({"jobs": [{}] * 501}, ("jobs",)),
        ({"jobs": [{"job_name": "a"}, 3]}, ("jobs", 1)),
        ({"jobs": [{"job_name": "a"}], "template": []}, ("template",)),
        ([], ()),
        ({"jobs": [{"job_name": "a"}], "template": "x"}, ("template",)),
    ],
)
def test_what_is_no_batch_is_refused(api: Api, body: Any, place: tuple[Any, ...]) -> None:
    found = api.post("/jobs/batch", json=body).faults()
    assert {where for where, _ in found} == {("body", *place)}


@on_both_databases
def test_a_name_that_is_there_twice_or_taken_is_named(api: Api) -> None:
    api.new_job(job_name="taken")
    for names, wrong in ((("a", "b", "a"), "a"), (("a", "taken", "b"), "taken")):
        reply = start(api, *named(*names), template=template())
        assert (reply.status, reply.detail) == (409, f"Job name must be unique: '{wrong}'")
    lacking = template(attributes={"files_down": {"data_ids": ["nothing"]}})
    assert start(api, *named("a", "taken"), template=lacking).status == 409
    assert count_jobs(api) == 1


@on_both_databases
def test_a_refusal_of_inputs_names_the_job(api: Api) -> None:
    api.plant_inputs()
    lacking = {"files_down": {"data_ids": ["exp", "nothing"]}}
    reply = start(api, *named("a"), {"job_name": "b", "attributes": lacking}, template=template())
    assert reply.status == 400
    assert reply.detail.startswith("Job 'b': The input 'data/nothing' does not exist")
    api.plant("output/c/file")
    reply = start(api, *named("a", "c"), template=template())
    assert reply.status == 409
    assert reply.detail.startswith("'output/c' already holds files")
    assert count_jobs(api) == 0


def test_files_of_a_job_and_of_a_batch_are_limited(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    api = Api(start_gateway(MAX_JOB_FILES="2"), "ada", issuer.token("ada"))
    for number in range(3):
        api.plant(f"data/three/{number}")
    for name in ("1", "2", "3"):
        api.plant(f"data/{name}/{name}")

    def refusal(*ids: list[str]) -> Any:
        wanted = [
            {"job_name": f"job-{index}", "attributes": {"files_down": {"data_ids": data}}}
            for index, data in enumerate(ids)
        ]
        reply = start(api, *wanted, template=template())
        return reply.status, reply.json().get("detail")

    of_job, of_batch = "A job may have at most 2 input files", "may have at most 20 input files"
    assert refusal(["1"], ["three"]) == (413, f"Job 'job-1': {of_job}")
    assert refusal(["1"], ["1", "2", "3"]) == (413, f"Job 'job-1': {of_job}")
    assert refusal(*[["1", "2"]] * 11) == (413, f"The jobs of a batch {of_batch}")
    assert refusal(*[["1", "2"]] * 10)[0] == 201


def test_a_template_counts_once_for_each_job(start_gateway: StartGateway, issuer: Issuer) -> None:
    api = Api(start_gateway(MAX_BODY_BYTES="65536"), "ada", issuer.token("ada"))
    long = template(labels={str(number): "x" * 255 for number in range(16)})
    assert start(api, *named("a", "b"), template=long).status == 201
    reply = start(api, *named(*map(str, range(20))), template=long)
    assert reply.status == 413
    assert reply.detail == "The jobs may have at most 65536 bytes, each with the template"
    deep = b'{"jobs": [{}], "template": {"x": ' + b"[" * 500 + b"]" * 500 + b"}}"
    reply = api.post("/jobs/batch", body=deep, headers={"Content-Type": "application/json"})
    assert reply.faults() == {(("body",), "value_error")}


def test_unfinished_jobs_count_all_of_a_batch(start_gateway: StartGateway, issuer: Issuer) -> None:
    api = Api(start_gateway(MAX_UNFINISHED_JOBS="3"), "ada", issuer.token("ada"))
    api.get("/files/")
    api.new_job()
    reply = start(api, *named("a", "b", "c"), template=template())
    assert (reply.status, reply.detail) == (429, "Limit exceeded: 3 unfinished jobs")
    assert start(api, *named("a", "b"), template=template()).status == 201


@on_both_databases
def test_a_batch_may_have_500_jobs(api: Api) -> None:
    names = [f"job-{number}" for number in range(500)]
    batch = start(api, *named(*names), template=template()).json()
    assert [job["job_name"] for job in batch["jobs"]] == names


async def test_racing_batches_are_whole_or_not_there(database: Database, database_url: str) -> None:
    databases = [Database(database_settings(database_url)) for _ in range(3)]
    insertions = [JobInsertion(one, unfinished=12) for one in databases]
    shared = submission("ada")

    def batch(index: int) -> list[Any]:
        return [submission("ada"), shared if index % 2 else submission("ada"), submission("ada")]

    outcomes = await asyncio.gather(
        *(insertions[index % 3].batch("ada", batch(index), None) for index in range(9)),
        return_exceptions=True,
    )
    whole = [one for one in outcomes if isinstance(one, dict)]
    assert {type(one) for one in outcomes} <= {dict, BatchNameTaken, TooManyUnfinished}
    assert len(whole) == 4
    there = {row["id"]: row["batch_id"] for row in await all_rows(database, jobs)}
    assert there == {job["id"]: one["batch_id"] for one in whole for job in one["jobs"]}
    assert (
        len(await all_rows(database, handovers)) == len(await all_rows(database, job_events)) == 12
    )
    assert len(await all_rows(database, job_batches)) == 4
    for one in databases:
        await one.close()


def test_a_batch_holds_one_slot_and_looks_inputs_up_once(
    api: Api, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.plant_inputs()
    assert gateway.app is not None
    storage = gateway.app[STORAGE]
    asked: list[list[str]] = []
    survey = storage.survey

    async def record(inputs: Any, places: Any, **more: Any) -> Any:
        asked.append(list(map(str, inputs)))
        return await survey(inputs, places, **more)

    monkeypatch.setattr(type(storage), "survey", lambda _, *args, **more: record(*args, **more))
    assert start(api, *named("a", "b", "c"), template=job_body(job_name=...)).status == 201
    assert asked == [["config/exp", "data/exp", "artifact/exp"]]


def test_the_answer_is_documented_with_an_example(api: Api) -> None:
    document = orjson.loads(api.get("/openapi.json").body)
    operation = document["paths"]["/jobs/batch"]["post"]
    names = {item["name"] for item in operation["parameters"]}
    assert "Idempotency-Key" in names
    assert "Idempotent-Replayed" in operation["responses"]["201"]["headers"]
    job = document["components"]["schemas"]["JobParts"]
    assert "required" not in job
    assert {"job_name", "labels", "hardware"} <= set(job["properties"])
