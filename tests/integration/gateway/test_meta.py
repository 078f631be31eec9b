"""The public routes, and which routes there are."""

import re

import pytest

from devtools.user_pool import CLIENT, POOL, REGION, Issuer
from gateway.http.keys import HEALTH
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api

PUBLIC = ["/", "/access_info", "/docs", "/docs/swagger-ui.css", "/docs/start.js", "/openapi.json"]
USERS_ONLY = [
    ("GET", "/user"), ("GET", "/jobs"), ("POST", "/jobs"), ("GET", "/jobs/1"),
    ("DELETE", "/jobs/1"), ("GET", "/jobs/applications"), ("GET", "/files"), ("GET", "/files/"),
    ("GET", "/files/data/x/url"), ("GET", "/files/data/x/download"),
    ("HEAD", "/files/data/x/download"), ("PUT", "/files/data/x"), ("DELETE", "/files/data/x"),
    ("POST", "/files/data/x/"), ("POST", "/files/data/x/url"), ("POST", "/files/data/x/upload"),
]  # fmt: skip


def test_the_root_greets(anybody: Api) -> None:
    reply = anybody.get("/")
    assert reply.json() == "Welcome to the DECODE OpenCloud User-facing API"
    assert reply.headers["content-type"] == "application/json"


def test_access_info_names_the_pool(anybody: Api) -> None:
    info = {"user_pool_id": POOL, "client_id": CLIENT, "region": REGION}
    assert anybody.get("/access_info").json() == {"cognito": info}


@pytest.mark.parametrize("path", PUBLIC)
def test_public_routes_need_no_token_and_ignore_a_wrong_one(anybody: Api, path: str) -> None:
    assert anybody.get(path).status == 200
    assert anybody.get(path, headers={"Authorization": "Bearer nonsense"}).status == 200


@pytest.mark.parametrize(("method", "path"), USERS_ONLY)
def test_all_other_routes_need_a_token(anybody: Api, method: str, path: str) -> None:
    reply = anybody.send(method, path)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    if method != "HEAD":
        assert reply.detail == "Not authenticated"


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000])
def test_a_token_is_required_before_the_body_is_read(anybody: Api, body: bytes) -> None:
    assert anybody.post("/jobs", body=body).status == 401


@pytest.mark.parametrize("path", ["/nope", "/job", "/files2", "/user/x", "//jobs"])
def test_unknown_routes_are_404_even_without_a_token(anybody: Api, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "PATCH"):
        reply = anybody.send(method, path)
        assert (reply.status, reply.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/", "GET"), ("HEAD", "/", "GET"), ("POST", "/access_info", "GET"),
        ("DELETE", "/user", "GET"), ("PUT", "/jobs", "GET POST"), ("OPTIONS", "/jobs", "GET POST"),
        ("PUT", "/jobs/1", "DELETE GET PATCH"), ("POST", "/jobs/applications", "DELETE GET PATCH"),
        ("GET", "/_job_status", "PUT"), ("PATCH", "/files/data/x", "DELETE GET PUT"),
        ("POST", "/files/data/x", "DELETE GET PUT"),
        ("PATCH", "/files/data/x/upload", "DELETE GET POST PUT"),
    ],
)  # fmt: skip
def test_another_method_is_405_even_without_a_token(
    anybody: Api, method: str, path: str, allowed: str
) -> None:
    reply = anybody.send(method, path)
    assert reply.status == 405
    assert sorted(re.split(r",\s*", reply.headers["allow"])) == allowed.split()
    if method != "HEAD":
        assert reply.json() == {"detail": "Method Not Allowed"}


@pytest.mark.parametrize("path", ["/files", "/files/?x=1", "/jobs/?x=1&%ff=&y", "/user/"])
def test_a_slash_at_the_end_and_unknown_parameters_do_not_matter(api: Api, path: str) -> None:
    assert api.get(path).status == 200


def test_the_documentation_works_offline(anybody: Api) -> None:
    page = anybody.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "openapi.json" in page.text
    assert "://" not in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert assets
    for asset in assets:
        assert anybody.get(f"/{asset}").status == 200


def test_the_files_of_the_documentation_are_read_once(
    anybody: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = anybody.get("/docs/swagger-ui-bundle.js")
    assert len(first.body) > 1_000_000
    monkeypatch.setattr("pathlib.Path.read_bytes", None)
    assert anybody.get("/docs/swagger-ui-bundle.js").body == first.body


def test_no_other_file_is_served_with_the_documentation(anybody: Api) -> None:
    for name in ("nope", "..%2fpublic.py", "swagger-ui.css.map", "%00"):
        assert anybody.get(f"/docs/{name}").status == 404


def test_a_request_id_is_passed_on_or_made(anybody: Api) -> None:
    assert anybody.get("/", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    made = anybody.get("/", headers={"X-Request-ID": "<bad>"}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)


ANSWERS = {
    "/": 200, "/jobs": 200, "/none": 404, "/files/data/d/": 200, "/files/data/d/url": 200,
    "/files/data/d/f/download": 200, "/files/data/d/download": 200, "/files/data/e/download": 404,
}  # fmt: skip


@pytest.mark.parametrize(("path", "status"), ANSWERS.items())
def test_every_answer_states_the_requests_id_streams_included(
    api: Api, path: str, status: int
) -> None:
    api.plant("data/d/f")
    reply = api.get(path, headers={"X-Request-ID": "mine-2"})
    assert (reply.status, reply.headers["x-request-id"]) == (status, "mine-2")
    assert "connection" not in reply.headers


def test_during_a_drain_every_answer_closes_its_connection(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    user = Api(start_gateway(), "somebody", issuer.token("somebody"))
    user.plant("data/d/f")
    assert user.gateway.app is not None
    user.gateway.app[HEALTH].draining = True
    for path, status in ANSWERS.items():
        reply = user.get(path)
        assert (path, reply.status, reply.headers.get("connection")) == (path, status, "close")
