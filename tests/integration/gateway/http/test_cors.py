"""Only the front end's origin may call."""

from collections.abc import Callable

import pytest

from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import FRONTEND, Api

FOREIGN = [
    "http://elsewhere.example", "null", FRONTEND + ".evil.example", FRONTEND + "/",
    FRONTEND.upper(), "https://localhost:8080", "http://localhost",
]  # fmt: skip


def preflight(api: Api, origin: str, path: str = "/jobs"):
    asked = {"Method": "PUT", "Headers": "x-any, authorization"}
    headers = {f"Access-Control-Request-{name}": value for name, value in asked.items()}
    return api.send("OPTIONS", path, headers={"Origin": origin, **headers})


@pytest.mark.parametrize("path", ["/jobs", "/jobs/1", "/files//", "/files/data/x/upload", "/nope"])
def test_the_front_end_may_ask_for_any_method_and_header(anybody: Api, path: str) -> None:
    reply = preflight(anybody, FRONTEND, path)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == FRONTEND
    assert reply.headers["access-control-allow-credentials"] == "true"
    assert reply.headers["access-control-allow-headers"] == "x-any, authorization"
    methods = set(reply.headers["access-control-allow-methods"].split(", "))
    assert {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} <= methods
    assert reply.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_foreign_origin_gets_no_permission(anybody: Api, origin: str) -> None:
    for reply, status in (
        (preflight(anybody, origin), 400),
        (anybody.get("/", headers={"Origin": origin}), 200),
    ):
        assert reply.status == status
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert reply.headers["vary"] == "Origin"


FILE = "/files/data/f.txt/download"
ANSWERS: list[tuple[int, Callable[[Api, dict[str, str]], object]]] = [
    (200, lambda api, h: api.get("/", headers=h)),
    (200, lambda api, h: api.get("/docs", headers=h)),
    (200, lambda api, h: api.get(FILE, headers=h)),
    (200, lambda api, h: api.get("/files/data//download", headers=h)),
    (206, lambda api, h: api.get(FILE, headers={**h, "Range": "bytes=0-0"})),
    (204, lambda api, h: api.delete("/files/data/nothing", headers=h)),
    (401, lambda api, h: Api(api.gateway).get("/user", headers=h)),
    (404, lambda api, h: api.get("/jobs/999999", headers=h)),
    (404, lambda api, h: api.get("/nope", headers=h)),
    (405, lambda api, h: api.put("/jobs", headers=h)),
    (413, lambda api, h: api.post("/jobs", body=b"[" * 5_000_000, headers=h)),
    (416, lambda api, h: api.get(FILE, headers={**h, "Range": "bytes=99-"})),
    (417, lambda api, h: api.get("/", headers={**h, "Expect": "miracles"})),
    (422, lambda api, h: api.post("/jobs", json={}, headers=h)),
]  # fmt: skip


@pytest.mark.parametrize(("status", "ask"), ANSWERS, ids=lambda value: str(value)[:3])
def test_every_answer_to_the_front_end_carries_the_headers(api: Api, status, ask) -> None:
    api.plant("data/f.txt")
    reply = ask(api, {"Origin": FRONTEND})
    assert reply.status == status
    assert reply.headers["access-control-allow-origin"] == FRONTEND
    assert reply.headers["access-control-allow-credentials"] == "true"
    assert reply.headers["vary"] == "Origin"


def test_server_errors_carry_the_headers(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("gateway.jobs.finding.service.Finding.page")
    reply = api.get("/jobs", headers={"Origin": FRONTEND})
    assert (reply.status, reply.json()) == (500, {"detail": "Internal Server Error"})
    assert reply.headers["access-control-allow-origin"] == FRONTEND


@pytest.mark.parametrize(
    ("front_end", "origin"),
    [("https://Front.example/app/", "https://front.example"), (None, "http://localhost:8080")],
)
def test_the_front_ends_origin_is_scheme_host_and_port(
    start_gateway: StartGateway, front_end: str | None, origin: str
) -> None:
    anybody = Api(start_gateway(FRONTEND_URL=front_end))
    reply = anybody.get("/", headers={"Origin": origin})
    assert reply.headers["access-control-allow-origin"] == origin


def test_without_a_front_end_no_origin_may_call(start_gateway: StartGateway) -> None:
    anybody = Api(start_gateway(FRONTEND_URL=""))
    reply = anybody.get("/", headers={"Origin": FRONTEND})
    assert reply.status == 200
    assert "access-control-allow-origin" not in reply.headers
    assert preflight(anybody, FRONTEND).status == 400
    assert preflight(anybody, "").status == 400
