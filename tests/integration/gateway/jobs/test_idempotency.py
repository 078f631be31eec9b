"""Requests that carry an `Idempotency-Key`."""

import asyncio
import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
from sqlalchemy import select, update

from common.database.engine import Database, utc_now
from common.database.tables import idempotency_keys, jobs
from devtools.database import database_settings
from devtools.postgres import run_apart
from devtools.user_pool import Issuer
from devtools.waiting import eventually
from gateway.files.handlers import STORAGE
from gateway.jobs.errors import KeyBusy, KeyUsed
from gateway.jobs.idempotency.claims import Claim, IdempotencyKeys, Stored
from gateway.jobs.insertion import JobInsertion, NewJob
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import FRONTEND, Api, Gateway, Reply, fresh, job_body, on_both_databases
from tests.support.records import rows, submission

on_both = on_both_databases
PLACE = (("header", "idempotency-key"), "value_error")
NO_INPUTS = {"attributes": {"files_down": {}}}


def send(api: Api, key: str, target: str = "/jobs", json: Any = ..., **parts: Any) -> Reply:
    return api.post(target, json=json, headers={"Idempotency-Key": key}, **parts)


def count_jobs(api: Api) -> int:
    return len(api.get("/jobs?limit=1000").json())


def execute(api: Api, statement: Any) -> list[Any]:
    """Run a statement past the API."""

    async def run() -> list[Any]:
        database = Database(api.gateway.settings.database)
        try:
            async with database.transaction() as tx:
                result = await tx.execute(statement)
                return list(result.all()) if result.returns_rows else []
        finally:
            await database.close()

    return run_apart(run())


def requests_of(api: Api) -> list[tuple[str, Any]]:
    """Each request that takes a key."""
    job = api.new_job()["id"]
    return [
        ("/jobs", job_body(**NO_INPUTS)),
        ("/jobs/batch", {"jobs": [job_body(**NO_INPUTS)]}),
        (f"/jobs/{job}/repeat", {"priority": 2}),
    ]


@on_both
def test_a_repeated_request_gets_the_answer_of_the_first_one_byte_for_byte(api: Api) -> None:
    for target, body in requests_of(api):
        key = fresh("key")
        first = send(api, key, target, body)
        assert (first.status, "idempotent-replayed" in first.headers) == (201, False)
        before = count_jobs(api)
        again = send(api, key, target, body)
        assert (again.status, again.body) == (201, first.body)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers.get("link") == first.headers.get("link")
        assert again.headers["content-type"] == "application/json"
        assert count_jobs(api) == before


@on_both
def test_it_does_so_after_the_job_has_been_deleted(api: Api) -> None:
    for kind in range(3):
        target, body = requests_of(api)[kind]
        key = fresh("key")
        first = send(api, key, target, body)
        for job in api.get("/jobs").json():
            api.delete(f"/jobs/{job['id']}")
        again = send(api, key, target, body)
        assert (again.status, again.body) == (201, first.body)
        assert api.get("/jobs").json() == []


def test_bodies_are_compared_as_parsed_json(api: Api) -> None:
    body = job_body(**NO_INPUTS, priority=2)
    first = send(api, "parsed", "/jobs", body)
    for text in (
        orjson.dumps(dict(reversed(body.items())), option=orjson.OPT_INDENT_2),
        b"\xef\xbb\xbf" + orjson.dumps(body),
        orjson.dumps({**body, "priority": 2.0}),
    ):
        headers = {"Idempotency-Key": "parsed", "Content-Type": "application/json"}
        assert api.post("/jobs", body=text, headers=headers).body == first.body
    for other in ({**body, "priority": "2"}, {**body, "unknown": 1}, {**body, "priority": 3}):
        assert send(api, "parsed", "/jobs", other).faults() == {PLACE}
    assert count_jobs(api) == 1


def test_an_omitted_body_equals_an_empty_object_and_a_slash_at_the_end_does_not_count(
    api: Api,
) -> None:
    job = api.new_job()["id"]
    headers = {"Idempotency-Key": "omitted"}
    first = api.post(f"/jobs/{job}/repeat", headers=headers)
    assert first.status == 201
    for again in (
        api.post(f"/jobs/{job}/repeat", headers=headers, json={}),
        api.post(f"/jobs/{job}/repeat/", headers=headers),
    ):
        assert (again.status, again.body) == (201, first.body)


@on_both
def test_a_key_of_another_request_is_refused(api: Api, other: Api) -> None:
    body = job_body(**NO_INPUTS)
    first = send(api, "mine", "/jobs", body)
    for target, changed in (
        ("/jobs", job_body(**NO_INPUTS)),
        ("/jobs/batch", {"jobs": [body]}),
        (f"/jobs/{first.json()['id']}/repeat", body),
    ):
        assert send(api, "mine", target, changed).faults() == {PLACE}
    assert count_jobs(api) == 1
    assert send(other, "mine", "/jobs", body).json()["user_id"] == other.user


@pytest.mark.parametrize(
    ("sent", "same"),
    [
        ("a b", '"a b"'),
        ('say \\"x"', r'"say \\\"x\""'),
        ("~!" * 127 + "x", f'"{"~!" * 127}x"'),
        ("'", '"\'"'),
    ],
)
def test_a_bare_key_is_the_quoted_one_without_quotes(api: Api, sent: str, same: str) -> None:
    body = job_body(**NO_INPUTS)
    first = send(api, sent, "/jobs", body)
    assert first.status == 201, first
    assert send(api, same, "/jobs", body).body == first.body


@pytest.mark.parametrize(
    "sent",
    ["", '""', "x" * 256, f'"{"x" * 256}"', '"open', '"', r'"\a"', '"a"b', '"a";b=1', "ä", "a\tb"],
)
def test_what_is_no_key_is_refused_beside_other_faults(api: Api, sent: str) -> None:
    for target in ("/jobs", "/jobs/batch", "/jobs/1/repeat"):
        assert PLACE in send(api, sent, target, {}).faults()
    assert send(api, sent, "/jobs", job_body(priority=9)).faults() == {
        PLACE,
        (("body", "priority"), "value_error"),
    }
    assert count_jobs(api) == 0


def test_two_lines_of_the_header_are_one_value(api: Api) -> None:
    body = orjson.dumps(job_body(**NO_INPUTS))
    head = f"POST /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
    keys = 'Idempotency-Key: "a"\r\nIdempotency-Key: "b"\r\n'
    length = f"Content-Length: {len(body)}\r\n\r\n"
    assert api.gateway.raw((head + keys + length).encode() + body).faults() == {PLACE}


@on_both
def test_a_refused_request_frees_its_key(api: Api) -> None:
    api.submit(job_name="taken", **NO_INPUTS)
    key = fresh("key")
    lacking = {"files_down": {"data_ids": ["nothing"]}}
    for target, body, status in (
        ("/jobs", job_body(job_name="taken", **NO_INPUTS), 409),
        ("/jobs", job_body(attributes=lacking), 400),
        ("/jobs", job_body(application={**job_body()["application"], "version": "v9"}), 422),
        ("/jobs/999999999/repeat", {}, 404),
        ("/jobs/batch", {"jobs": [job_body(job_name="taken", **NO_INPUTS)]}, 409),
    ):
        assert send(api, key, target, body).status == status
    assert send(api, key, "/jobs", job_body(**NO_INPUTS)).status == 201


def test_a_request_beyond_a_limit_frees_its_key(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    api = Api(start_gateway(MAX_UNFINISHED_JOBS="1"), "ada", issuer.token("ada"))
    api.get("/files/")
    body = job_body(**NO_INPUTS)
    job = api.new_job()["id"]
    assert send(api, "key", "/jobs", body).status == 429
    api.report(job, "finished")
    assert send(api, "key", "/jobs", body).status == 201


@on_both
def test_many_requests_with_one_key_at_once_start_one_job(api: Api) -> None:
    body = job_body(**NO_INPUTS)
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: send(api, "race", "/jobs", body), range(20)))
    assert {reply.status for reply in replies} <= {201, 409}
    created = {reply.body for reply in replies if reply.status == 201}
    assert len(created) == 1
    for reply in replies:
        if reply.status == 409:
            assert reply.headers["retry-after"] == "1"
            assert reply.detail == "The first request with this key is still under way"
    assert count_jobs(api) == 1


@on_both
def test_the_key_of_a_dead_process_is_busy_for_a_minute(api: Api) -> None:
    body = job_body(**NO_INPUTS)
    first = send(api, "dead", "/jobs", body).json()["id"]
    api.delete(f"/jobs/{first}")
    own = idempotency_keys.c.user_id == api.user
    busy = update(idempotency_keys).where(own).values(status=None, body=None, owner="dead")
    execute(api, busy.values(busy_until=utc_now(59.0)))
    refused = send(api, "dead", "/jobs", body)
    assert (refused.status, refused.headers["retry-after"]) == (409, "1")
    assert send(api, "dead", "/jobs", job_body()).faults() == {PLACE}
    execute(api, update(idempotency_keys).where(own).values(busy_until=utc_now(-0.1)))
    assert send(api, "dead", "/jobs", body).status == 201
    (claimed,) = execute(api, select(idempotency_keys).where(own))
    assert (claimed.status, claimed.busy_until) == (201, None)


@on_both
def test_an_answer_is_forgotten_after_the_retention(api: Api) -> None:
    body = job_body(**NO_INPUTS)
    first = send(api, "old", "/jobs", body).json()["id"]
    own = idempotency_keys.c.user_id == api.user
    for age, status in ((86_000.0, 201), (86_401.0, 409)):  # 409: the name is taken
        execute(api, update(idempotency_keys).where(own).values(created_at=utc_now(-age)))
        assert send(api, "old", "/jobs", body).status == status
    api.delete(f"/jobs/{first}")
    assert send(api, "old", "/jobs", body).json()["id"] != first


def test_requests_without_a_key_leave_no_row(api: Api) -> None:
    api.new_job()
    own = select(idempotency_keys).where(idempotency_keys.c.user_id == api.user)
    assert execute(api, own) == []


def test_the_front_end_may_read_that_an_answer_is_replayed(api: Api) -> None:
    body = job_body(**NO_INPUTS)
    headers = {"Idempotency-Key": "front", "Origin": FRONTEND}
    for _ in range(2):
        reply = api.post("/jobs", json=body, headers=headers)
        exposed = reply.headers["access-control-expose-headers"].split(", ")
        assert {"Idempotent-Replayed", "Link"} <= set(exposed)


def test_a_client_that_leaves_before_its_job_is_there_frees_its_key(
    api: Api, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gateway.app is not None
    storage = type(gateway.app[STORAGE])
    looking, survey = threading.Event(), storage.survey

    async def hang(*_: Any, **__: Any) -> Any:
        looking.set()
        await asyncio.Event().wait()

    body = job_body(**NO_INPUTS)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "survey", hang)
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
        headers = {"Authorization": f"Bearer {api.token}", "Idempotency-Key": "left"}
        connection.request("POST", "/jobs", orjson.dumps(body), headers)
        assert looking.wait(20)
        assert send(api, "left", "/jobs", body).status == 409
        connection.close()
    assert storage.survey is survey

    def is_free() -> bool:
        return send(api, "left", "/jobs", body).status == 201

    run_apart(eventually(is_free))
    assert count_jobs(api) == 1


# -- several gateways ------------------------------------------------------------------------------


async def claim(keys: IdempotencyKeys, key: str = "key", fingerprint: str = "x") -> Claim | Stored:
    return await keys.claim("ada", key, fingerprint, status=201, headers={})


def keyed(claimed: Claim | Stored) -> NewJob:
    assert isinstance(claimed, Claim)
    new = submission("ada")
    return NewJob(new.row, new.payload, claim=claimed)


async def expire(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(update(idempotency_keys).values(busy_until=utc_now(-1.0)))


async def test_one_of_many_gateways_gets_the_key(database: Database, database_url: str) -> None:
    databases = [Database(database_settings(database_url)) for _ in range(3)]
    gateways = [IdempotencyKeys(one, retention=60.0) for one in databases]
    outcomes = await asyncio.gather(
        *(claim(keys) for keys in gateways for _ in range(10)), return_exceptions=True
    )
    assert [isinstance(one, Claim) for one in outcomes].count(True) == 1
    assert [isinstance(one, KeyBusy) for one in outcomes].count(True) == 29
    await expire(database)
    outcomes = await asyncio.gather(
        *(claim(keys) for keys in gateways for _ in range(10)), return_exceptions=True
    )
    assert [isinstance(one, Claim) for one in outcomes].count(True) == 1
    for one in databases:
        await one.close()


async def test_a_slow_request_whose_claim_was_taken_over_makes_no_second_job(
    database: Database,
) -> None:
    keys, insertion = IdempotencyKeys(database, retention=60.0), JobInsertion(database)
    slow = keyed(await claim(keys))
    await expire(database)
    fast = keyed(await claim(keys))
    other = keyed(await claim(keys, "other"))
    # all in one transaction, which is repeated without the lost one
    results = await asyncio.gather(
        *map(insertion.one, (slow, submission("ada"), fast, other)), return_exceptions=True
    )
    assert [type(result) for result in results] == [KeyBusy, dict, dict, dict]
    assert len(await rows(database, jobs)) == 3
    stored = await claim(keys)
    assert isinstance(stored, Stored)
    assert orjson.loads(stored.body)["job_name"] == fast.row["job_name"]
    with pytest.raises(KeyBusy):
        await insertion.one(slow)
    with pytest.raises(KeyBusy):
        await insertion.batch("ada", [submission("ada")], slow.claim)
    assert len(await rows(database, jobs)) == 3


async def test_a_slow_request_whose_claim_nobody_took_over_succeeds(database: Database) -> None:
    keys, insertion = IdempotencyKeys(database, retention=60.0), JobInsertion(database)
    slow = keyed(await claim(keys))
    await expire(database)
    assert isinstance(await insertion.one(slow), dict)
    assert isinstance(await claim(keys), Stored)


async def test_a_freed_key_keeps_no_answer_from_being_stored(database: Database) -> None:
    """The client leaves during the transaction: its key is freed, then its job is there."""
    keys, insertion = IdempotencyKeys(database, retention=60.0), JobInsertion(database)
    new = keyed(await claim(keys))
    assert new.claim is not None
    with pytest.raises(asyncio.CancelledError):
        async with keys.held(new.claim):
            raise asyncio.CancelledError
    assert await rows(database, idempotency_keys) == []
    await insertion.one(new)
    assert isinstance(await claim(keys), Stored)
    with pytest.raises(RuntimeError):
        async with keys.held(new.claim):
            raise RuntimeError
    assert isinstance(await claim(keys), Stored)
    with pytest.raises(KeyUsed):
        await claim(keys, fingerprint="y")
