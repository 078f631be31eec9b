"""`GET /user/usage`, and a user's quota on every way in."""

import base64
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from common.database.engine import Database
from common.storage.factory import open_storage
from common.usage.records import mark_active
from devtools.postgres import run_apart
from devtools.user_pool import Issuer
from dispatcher.usage import UsageSweep
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import (
    Api,
    Gateway,
    fresh,
    multipart,
    on_both_databases,
    rows,
)

MEBIBYTE = 1 << 20

_SWEEPS = 30
"""One looks at a number of trees: those of other tests' users are due as well."""


def usage(api: Api) -> dict[str, Any]:
    reply = api.get("/user/usage")
    assert reply.status == 200, reply
    return reply.json()


def used(api: Api) -> int:
    return usage(api)["bytes"]["used"]


def measure(gateway: Gateway, user: str) -> None:
    """What a dispatcher does."""

    async def run() -> None:
        database = Database(gateway.settings.database)
        try:
            async with open_storage(gateway.settings.storage) as storage:
                async with database.transaction() as tx:
                    await mark_active(tx, {user: 0.0})
                sweep = UsageSweep(database=database, storage=storage, interval=300.0)
                for _ in range(_SWEEPS):
                    await sweep.sweep()
        finally:
            await database.close()

    run_apart(run())


@contextmanager
def stalled_upload(api: Api, size: int) -> Iterator[None]:
    """An upload of which `size` bytes have arrived, and no more."""
    head = (
        f"POST /files/data/up/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="stalled"\r\n\r\n'
    body = start + b"x" * size
    with socket.create_connection(("127.0.0.1", api.gateway.port)) as connection:
        connection.sendall(head.encode() + f"{len(body):x}\r\n".encode() + body + b"\r\n")
        yield


def upload_chunked(api: Api, name: str, content: bytes) -> int:
    """Upload without announcing a length; returns the status."""
    body, kind = multipart(name, content)
    head = (
        f"POST /files/data/up/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
        f"Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    return api.gateway.raw(head.encode() + chunk, timeout=30.0).status


# -- the answer -----------------------------------------------------------------------------------
def test_somebody_new_has_nothing_in_use_and_no_limits(api: Api) -> None:
    assert usage(api) == {
        "jobs": {"unfinished": 0, "limit": None},
        "bytes": {"used": 0, "limit": None, "measured_at": None},
        "requests": None,
    }


def test_nobody_learns_anything_without_a_token(anybody: Api) -> None:
    assert anybody.get("/user/usage").status == 401
    assert anybody.post("/user/usage").status == 405


@on_both_databases
def test_jobs_that_have_not_ended_are_counted(api: Api, other: Api) -> None:
    ended, deleted, *_ = [api.new_job()["id"] for _ in range(4)]
    api.report(ended, "running")
    api.report(ended, "finished")
    api.delete(f"/jobs/{deleted}")
    assert usage(api)["jobs"] == {"unfinished": 2, "limit": None}
    assert usage(other)["jobs"]["unfinished"] == 0


@on_both_databases
def test_uploads_renames_and_deletions_count_at_once(api: Api, other: Api) -> None:
    api.upload("data/x", "a", b"1" * 100)
    api.upload("data/x", "b", b"1" * 30)
    assert used(api) == 130
    api.upload("data/x", "a", b"1" * 50)
    assert used(api) == 80
    api.put("/files/data/x/b", json={"path": "data/x/c"})
    assert used(api) == 80
    api.put("/files/data/x/c", json={"path": "data/x/a"})
    assert used(api) == 30
    api.upload("config/y", "a", b"1" * 5)
    api.delete("/files/data/x/")
    assert used(api) == 5
    assert used(other) == 0


@pytest.mark.parametrize("storage", ["local", "s3"])
def test_the_figures_are_those_of_the_storage(request: pytest.FixtureRequest, storage: str) -> None:
    if storage == "s3":
        api = request.getfixturevalue("start_on_s3")()
    else:
        api = request.getfixturevalue("limited")(1_000)
    api.upload("data/x", "a", b"1" * 100)
    api.upload("data/x", "a", b"1" * 40)
    api.upload("data/x", "b", b"1" * 7)
    api.put("/files/data/x/b", json={"path": "data/x/c"})
    api.delete("/files/data/x/c")
    assert used(api) == 40
    measure(api.gateway, api.user)
    found = usage(api)["bytes"]
    assert found["used"] == 40
    assert datetime.fromisoformat(found["measured_at"]).microsecond is not None
    assert len(found["measured_at"]) == len("2026-01-01T12:00:00.123456")


def test_what_workers_write_counts_once_it_is_measured(api: Api) -> None:
    api.upload("data/x", "a", b"1" * 100)
    api.plant("output/train/result", b"1" * 11)
    assert used(api) == 100
    measure(api.gateway, api.user)
    assert used(api) == 111
    api.upload("data/x", "b", b"1" * 5)
    assert used(api) == 116


@on_both_databases
def test_a_deleted_jobs_results_count_no_more(api: Api) -> None:
    job = api.new_job()
    api.plant(f"output/{job['job_name']}/result", b"1" * 11)
    api.upload("data/x", "a", b"1" * 2)
    measure(api.gateway, api.user)
    assert used(api) == 13
    api.delete(f"/jobs/{job['id']}")
    assert used(api) == 2


def test_what_fails_counts_nothing(api: Api) -> None:
    with stalled_upload(api, 1_000):
        pass
    assert api.upload("output/x", "a").status == 422
    assert api.delete("/files/data/nothing/").status == 204
    assert api.put("/files/data/nothing", json={"path": "data/x"}).status == 404
    assert used(api) == 0


def is_due(api: Api) -> bool:
    statement = "SELECT due_at FROM user_usage WHERE user_id = :user AND due_at IS NOT NULL"
    return bool(rows(api.gateway, statement, user=api.user))


@pytest.mark.parametrize(
    "act",
    [
        lambda api: api.upload("data/x", "a"),
        lambda api: api.delete("/files/data/"),
        lambda api: api.put("/files/data/nothing", json={"path": "data/x"}),
        lambda api: api.get("/user/usage"),
        lambda api: api.report(api.new_job()["id"], "running"),
    ],
    ids=["upload", "deletion", "rename", "question", "status"],
)
def test_what_may_change_the_files_has_them_measured(
    api: Api, act: Callable[[Api], Any], wait_for: Callable[[Callable[[], bool]], None]
) -> None:
    assert not is_due(api)
    act(api)
    wait_for(lambda: is_due(api))


# -- requests -------------------------------------------------------------------------------------
def test_requests_are_those_of_the_rate_limit(start_gateway: StartGateway, issuer: Issuer) -> None:
    api = Api(start_gateway(RATE_LIMIT="600/60"), "user", issuer.token("user"))
    api.get("/user")
    reply = api.get("/user/usage")
    assert reply.json()["requests"] == {"limit": 600, "window": 60, "remaining": 598}
    assert reply.headers["ratelimit"].startswith('"default";r=598')


# -- the quota ------------------------------------------------------------------------------------
@pytest.fixture
def limited(start_gateway: StartGateway, issuer: Issuer) -> Callable[..., Api]:
    """A new caller of a new gateway with a quota in bytes."""

    def start(limit: int, **changes: str) -> Api:
        gateway = start_gateway(MAX_USER_BYTES=str(limit), **changes)
        user = fresh("user")
        return Api(gateway, user, issuer.token(user))

    return start


def exceeded(limit: int, in_use: int) -> str:
    return f"Your files may take at most {limit} bytes in all, and {in_use} bytes are in use"


def test_limits_are_shown(limited: Callable[..., Api]) -> None:
    api = limited(1_000, MAX_UNFINISHED_JOBS="7")
    api.upload("data/x", "a", b"1" * 10)
    assert usage(api)["jobs"]["limit"] == 7
    assert usage(api)["bytes"]["limit"] == 1_000


def test_an_upload_beyond_the_quota_is_refused_with_both_figures(
    limited: Callable[..., Api],
) -> None:
    api = limited(1_000)
    assert api.upload("data/x", "a", b"1" * 700).status == 201
    reply = api.upload("data/x", "b", b"1" * 301)
    assert (reply.status, reply.detail) == (413, exceeded(1_000, 700))
    assert api.upload("data/x", "b", b"1" * 300).status == 201
    assert api.upload("data/x", "c", b"1").status == 413
    assert upload_chunked(api, "c", b"1") == 413
    assert api.upload("data/x", "c", b"").status == 201
    assert used(api) == 1_000
    api.delete("/files/data/x/a")
    assert upload_chunked(api, "d", b"1" * 700) == 201
    assert used(api) == 1_000


def test_an_announced_upload_beyond_the_quota_is_refused_before_it_is_sent(
    limited: Callable[..., Api],
) -> None:
    api = limited(1_000)
    reply = api.gateway.raw(
        f"POST /files/data/up/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {1 << 40}\r\n\r\n".encode()
    )
    assert (reply.status, reply.detail) == (413, exceeded(1_000, 0))


def test_other_uploads_under_way_count(
    limited: Callable[..., Api], wait_for: Callable[[Callable[[], bool]], None]
) -> None:
    api = limited(3 * MEBIBYTE)
    content = b"1" * (2 * MEBIBYTE)
    with stalled_upload(api, 2 * MEBIBYTE):
        # until all of it has arrived, the other one may be the first
        wait_for(lambda: upload_chunked(api, "b", content) == 413)
        assert api.upload("data/x", "small", b"1" * 1_000).status == 201
    api.delete("/files/data/")
    wait_for(lambda: api.upload("data/x", "b", content).status == 201)
    assert used(api) == 2 * MEBIBYTE


def test_uploads_at_once_stay_within_the_quota(limited: Callable[..., Api]) -> None:
    api = limited(10 * MEBIBYTE)
    names = [f"f{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        statuses = list(
            threads.map(lambda name: upload_chunked(api, name, b"1" * 3 * MEBIBYTE), names)
        )
    assert set(statuses) <= {201, 413}
    stored = statuses.count(201)
    assert 1 <= stored <= 3
    assert used(api) == stored * 3 * MEBIBYTE


def test_uploads_under_way_on_another_gateway_count(
    limited: Callable[..., Api], wait_for: Callable[[Callable[[], bool]], None]
) -> None:
    here = limited(3 * MEBIBYTE)
    places = {
        name: here.gateway.environment[name] for name in ("DATABASE_URL", "USER_DATA_ROOT_PATH")
    }
    there = Api(limited(3 * MEBIBYTE, **places).gateway, here.user, here.token)
    published = "SELECT bytes FROM usage_uploads WHERE user_id = :user AND bytes >= :size"
    with stalled_upload(here, 2 * MEBIBYTE):
        wait_for(lambda: bool(rows(here.gateway, published, user=here.user, size=2 * MEBIBYTE)))
        assert upload_chunked(there, "b", b"1" * (2 * MEBIBYTE)) == 413
    wait_for(lambda: not rows(here.gateway, published, user=here.user, size=0))
    assert upload_chunked(there, "b", b"1" * (2 * MEBIBYTE)) == 201


def test_users_have_a_quota_each(limited: Callable[..., Api], issuer: Issuer) -> None:
    api = limited(1_000)
    other = Api(api.gateway, "other", issuer.token("other"))
    assert api.upload("data/x", "a", b"1" * 1_000).status == 201
    assert other.upload("data/x", "a", b"1" * 1_000).status == 201


def test_results_of_workers_count_against_the_quota(limited: Callable[..., Api]) -> None:
    api = limited(1_000)
    api.plant("output/train/result", b"1" * 1_500)
    measure(api.gateway, api.user)
    reply = api.upload("data/x", "a", b"1")
    assert (reply.status, reply.detail) == (413, exceeded(1_000, 1_500))


# -- links ----------------------------------------------------------------------------------------
def test_links_to_uploads_are_refused_when_nothing_is_left(limited: Callable[..., Api]) -> None:
    api = limited(1_000)
    assert api.upload("data/x", "a", b"1" * 999).status == 201
    link = api.post("/files/data/x/url")
    assert link.status == 201
    assert api.follow(link.json(), ("b", b"12")).status == 413
    assert api.follow(link.json(), ("b", b"1")).status == 201
    reply = api.post("/files/data/x/url")
    assert (reply.status, reply.detail) == (413, exceeded(1_000, 1_000))


def policy(link: dict[str, Any]) -> list[Any]:
    assert set(link) == {"method", "url", "headers", "data"}
    conditions = json.loads(base64.b64decode(link["data"]["policy"]))["conditions"]
    return [rule for rule in conditions if "content-length-range" in rule]


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({}, None),
        ({"MAX_UPLOAD_BYTES": "500"}, 500),
        ({"MAX_USER_BYTES": "800"}, 700),
        ({"MAX_UPLOAD_BYTES": "500", "MAX_USER_BYTES": "800"}, 500),
        ({"MAX_UPLOAD_BYTES": "500", "MAX_USER_BYTES": "300"}, 200),
    ],
)
def test_presigned_uploads_carry_what_the_limits_leave(
    start_on_s3: Callable[..., Api],
    limits: dict[str, str],
    most: int | None,
    wait_for: Callable[[Callable[[], bool]], None],
) -> None:
    api = start_on_s3(**limits)
    assert api.upload("data/x", "a", b"1" * 100).status == 201
    link = api.post("/files/data/x/url").json()
    assert policy(link) == ([] if most is None else [["content-length-range", 0, most]])
    measure(api.gateway, api.user)
    # the link may be used after that
    later = "SELECT 1 FROM user_usage WHERE user_id = :user AND active_until > measured_at"
    wait_for(lambda: bool(rows(api.gateway, later, user=api.user)))
