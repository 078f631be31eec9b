"""Jobs that take a great many files, or more than they may."""

import asyncio
import threading
from typing import Any

import pytest

from common.storage.local.storage import LocalStorage
from devtools.user_pool import Issuer
from gateway.jobs import submission
from gateway.jobs.schemas import JobRequestSchema
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, payload_of

MANY = 2_500


def submit(user: Api, *ids: str):
    return user.submit(attributes={"files_down": {"data_ids": [*ids]}})


@pytest.fixture
def user(api: Api) -> Api:
    for number in range(MANY):
        api.plant(f"data/many/{number:04}.tif", b"")
    return api


def test_every_file_is_handed_over_under_its_own_place(user: Api) -> None:
    reply = submit(user, "many")
    assert reply.status == 201
    assert payload_of(user, reply.json()["id"])["job"]["handler"]["files_down"] == {
        f"data/{number:04}.tif": f"{user.tree}/data/many/{number:04}.tif" for number in range(MANY)
    }


def test_one_clash_among_many_files_is_found(user: Api) -> None:
    user.plant("data/other/1234.tif")
    reply = submit(user, "many", "other")
    assert reply.status == 400
    for named in ("'many'", "'other'", "'data/1234.tif'"):
        assert named in reply.detail


def test_a_limit_is_kept(start_gateway: StartGateway, issuer: Issuer) -> None:
    user = Api(start_gateway(MAX_JOB_FILES="3"), "somebody", issuer.token("somebody"))
    for name in ("x/1", "x/2", "y/3", "y/4"):
        user.plant(f"data/{name}")
    assert submit(user, "x", "x/1", "y/3").status == 201
    reply = submit(user, "x", "y")
    assert reply.status == 413
    assert "3" in reply.detail
    # without looking up each id
    assert submit(user, *(f"none/{number}" for number in range(4))).status == 413


@pytest.fixture
def surveyed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many inputs each submission looks up."""
    counts: list[int] = []
    survey = LocalStorage.survey

    async def counted(self: LocalStorage, inputs: Any, *places: Any, **options: Any) -> Any:
        counts.append(len(inputs))
        return await survey(self, inputs, *places, **options)

    monkeypatch.setattr(LocalStorage, "survey", counted)
    return counts


def test_what_is_named_repeatedly_is_looked_up_once(user: Api, surveyed: list[int]) -> None:
    spellings = ["many", "many/", "many//", "//many"]
    assert submit(user, *spellings * 2_000).status == 201
    assert surveyed == [2]  # with and without the slash


def test_there_is_a_limit_by_default(api: Api, surveyed: list[int]) -> None:
    reply = submit(api, *(f"none/{number}" for number in range(10_001)))
    assert reply.status == 413
    assert "10000" in reply.detail
    assert surveyed == []
    reply = submit(api, *["a"] * 20_001)
    assert reply.faults() == {(("body", "attributes", "files_down", "data_ids"), "value_error")}


@pytest.mark.parametrize("wrong", [1, "", "..", "x%2f" * 64])
def test_only_the_first_hundred_faults_are_reported(api: Api, wrong: Any) -> None:
    down = {"data_ids": ["fine", *[wrong] * 5_000], "artifact_ids": [wrong] * 5_000}
    reply = api.submit(attributes={"files_down": down}, priority=9)
    assert reply.status == 422
    assert len(reply.detail) == 100
    places = [fault["loc"] for fault in reply.detail]
    assert ["body", "priority"] in places
    ids = [place for place in places if place != ["body", "priority"]]
    assert ids == [["body", "attributes", "files_down", "data_ids", n] for n in range(1, 100)]


def test_a_long_list_of_inputs_is_examined_beside_the_event_loop(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()

    def noted(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            threads.add(threading.get_ident())
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(JobRequestSchema, "load", noted(JobRequestSchema.load))
    monkeypatch.setattr(submission, "parse_selections", noted(submission.parse_selections))

    async def own_thread() -> int:
        return threading.get_ident()

    loop = asyncio.run_coroutine_threadsafe(own_thread(), api.gateway.loop).result()
    api.plant("data/a")
    assert submit(api, "a").status == 201
    assert threads == {loop}
    threads.clear()
    assert submit(api, *["a"] * 20_000).status == 201
    assert threads
    assert loop not in threads
