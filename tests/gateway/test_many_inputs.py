"""Jobs that take a great many files, or more than they may."""

import orjson
import pytest

from tests.gateway.conftest import StartGateway
from tests.gateway.support import Api, Issuer, job_body, rows

MANY = 2_500


def submit(user: Api, *ids: str):
    return user.post("/jobs", json=job_body(attributes={"files_down": {"data_ids": [*ids]}}))


@pytest.fixture
def user(api: Api) -> Api:
    for number in range(MANY):
        api.plant(f"data/many/{number:04}.tif", b"")
    return api


def test_every_file_is_handed_over_under_its_own_place(user: Api) -> None:
    reply = submit(user, "many")
    assert reply.status == 201
    statement = "SELECT payload FROM handovers WHERE job_id = :id"
    [[text]] = rows(user.gateway, statement, id=reply.json()["id"])
    assert orjson.loads(text)["job"]["handler"]["files_down"] == {
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
