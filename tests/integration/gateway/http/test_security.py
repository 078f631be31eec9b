"""What every answer tells browsers, and which `Host` is taken."""

from collections.abc import Callable

import pytest

from deploy.sandbox.ports import free_port
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import FRONTEND, INTERNAL_KEY, Api, Reply

PREFLIGHT = {"Origin": FRONTEND, "Access-Control-Request-Method": "PUT"}
ANSWERS: list[tuple[int, Callable[[Api], Reply]]] = [
    (200, lambda api: api.get("/")),
    (200, lambda api: api.get("/docs")),
    (200, lambda api: api.get("/docs/swagger-ui.css")),
    (200, lambda api: api.get("/files/data/f/download")),
    (200, lambda api: api.get("/files/data//download")),
    (304, lambda api: api.get("/files/data/f/download", headers={"If-None-Match": "*"})),
    (200, lambda api: api.send("OPTIONS", "/jobs", headers=PREFLIGHT)),
    (401, lambda api: Api(api.gateway).get("/user")),
    (404, lambda api: api.get("/nope")),
    (405, lambda api: api.put("/jobs")),
    (413, lambda api: api.post("/jobs", body=b"[" * 5_000_000)),
    (417, lambda api: api.get("/", headers={"Expect": "miracles"})),
    (422, lambda api: api.get("/jobs?limit=x")),
    (400, lambda api: api.gateway.raw(b"GET / HTTP/1.1\r\nno header\r\n\r\n")),
    (401, lambda api: api.put("/_job_status", headers={"x-api-key": "x"})),
]


@pytest.mark.parametrize(("status", "send"), ANSWERS, ids=range(len(ANSWERS)))
def test_every_answer_has_the_headers(api: Api, status: int, send: Callable[[Api], Reply]) -> None:
    api.plant("data/f")
    reply = send(api)
    assert reply.status == status
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["server"] == "opencloud"
    assert "strict-transport-security" not in reply.headers


@pytest.mark.parametrize("scheme", ["https", "HTTPS, http"])
def test_over_https_browsers_are_to_stay_there(api: Api, scheme: str) -> None:
    secured = {"X-Forwarded-Proto": scheme}
    for path in ("/", "/nope", "/files/data//download"):
        reply = api.get(path, headers=secured)
        assert reply.headers["strict-transport-security"] == "max-age=31536000"


def test_only_trusted_proxies_report_https(start_gateway: StartGateway, api: Api) -> None:
    outside = Api(start_gateway(TRUSTED_PROXIES="10.0.0.0/8"))
    secured = {"X-Forwarded-Proto": "https"}
    assert "strict-transport-security" not in outside.get("/", headers=secured).headers
    plain = {"X-Forwarded-Proto": "http"}
    assert "strict-transport-security" not in api.get("/", headers=plain).headers


@pytest.mark.parametrize(
    "host",
    ['x>"evil', "", "a b", "a/b", "a@b", "a?b", "a:b", "a:", "a:1:2", "[::1", "::1", "a,b", "a'b",
     "a:123456", "a" * 300],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/files/data/x/url", "/nope"])
def test_a_malformed_host_is_a_bad_request(api: Api, host: str, path: str) -> None:
    reply = api.get(path, headers={"Host": host})
    assert (reply.status, reply.json()) == (400, {"detail": "The Host header is malformed"})


@pytest.mark.parametrize(
    "host", ["a", "api.example", "api.example:443", "under_score:1", "127.0.0.1:80", "[::1]:8000"]
)
def test_any_host_with_or_without_a_port_is_taken(anybody: Api, host: str) -> None:
    assert anybody.get("/", headers={"Host": host}).status == 200


def test_a_request_without_a_host_is_taken(api: Api) -> None:
    assert api.gateway.raw(b"GET / HTTP/1.0\r\n\r\n").status == 200


def test_the_documentation_does_not_keep_tokens(anybody: Api) -> None:
    assert "persistAuthorization" not in anybody.get("/docs/start.js").text


def test_the_public_document_has_no_status_updates_where_they_have_a_port(
    start_gateway: StartGateway,
) -> None:
    apart = Api(start_gateway(INTERNAL_PORT=str(free_port())))
    body = apart.get("/openapi.json").text
    assert "_job_status" not in body
    assert "x-api-key" not in body
    assert apart.put("/_job_status", json={}, headers={"x-api-key": INTERNAL_KEY}).status == 404
