"""What a gateway's process shows, and what it never does: tokens, bodies, queries."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.sandbox import aws
from deploy.sandbox.ports import free_port
from devtools.services import Process
from devtools.user_pool import INTERNAL_KEY, Issuer
from gateway.http.request_log import SAMPLED
from tests.integration.gateway.conftest import NO_AWS, StartProcess
from tests.support.gateway import Api, multipart

pytestmark = pytest.mark.slow


@pytest.fixture
async def served(start_process: StartProcess, issuer: Issuer) -> tuple[Process, Api]:
    """A gateway's process, and a user of it."""
    port = free_port()
    no_cognito = aws.environment(NO_AWS)
    logs = {"LOG_LEVEL": "DEBUG", "LOG_FORMAT": "json"}
    process = start_process(PORT=port, PROD="false", **logs, **no_cognito)
    await process.wait_until_ready()
    return process, Api(SimpleNamespace(port=port), "somebody", issuer.token("somebody"))


async def records_of(process: Process) -> list[dict[str, Any]]:
    """What it has logged by its end."""
    assert await process.terminate() == 0
    return [json.loads(line) for line in process.output.splitlines()]


async def test_no_token_body_or_query_is_ever_shown(served: tuple[Process, Api]) -> None:
    process, api = served
    token, anybody = api.token, Api(api.gateway)
    update = {"job_id": 1, "status": "running", "runtime_details": "planted-details"}
    replies = [
        api.get("/user"),
        api.get("/user", headers={"Authorization": f"Bearer {token}x"}),
        api.get("/user", headers={"Cookie": f"Authorization=Bearer {token}"}),
        api.upload("data/x", "f.txt", b"planted-content"),
        api.submit(job_name=3, hardware="planted-body"),
        api.get("/jobs?limit=planted-query"),
        anybody.put("/_job_status", json=update, headers={"x-api-key": INTERNAL_KEY}),
        anybody.put("/_job_status", json=update, headers={"x-api-key": "planted-key"}),
        anybody.post("/token", json={"email": "me@example.com", "password": "planted-password"}),
    ]
    assert {reply.status // 100 for reply in replies} == {2, 4, 5}
    pages = {path: await process.page(path) for path in ("/livez", "/readyz", "/metrics")}
    ready = json.loads(pages["/readyz"])
    assert (ready["ready"], ready["database"]["ok"], ready["storage"]["ok"]) == (True, True, True)
    await records_of(process)
    for text in (process.output, *pages.values(), *(reply.text for reply in replies)):
        for secret in ("planted", INTERNAL_KEY, token, token.split(".")[2]):
            assert secret not in text


async def test_each_line_is_json_and_each_request_has_one(served: tuple[Process, Api]) -> None:
    process, api = served
    api.get("/files/", headers={"X-Request-ID": "first-request"})
    api.get("/jobs/x", headers={"X-Request-ID": "second-request"})
    body, kind = multipart("", b"", disposition=b"form-data; name=\"file\"; filename*=UTF-8''%80")
    api.post("/files/data/x/upload", body=body, headers={"Content-Type": kind})
    records = await records_of(process)
    assert {record["service"] for record in records} == {"gateway"}
    answered = {r["request_id"]: r for r in records if r["event"] == "request.answered"}
    first, second = answered["first-request"], answered["second-request"]
    assert (first["method"], first["path"], first["status"]) == ("GET", "/files/", 200)
    assert (second["route"], second["status"]) == ("/jobs/{job_id}", 422)
    assert first["user_id"] == second["user_id"] == "somebody"
    assert records[-1]["event"] == "process.stopped"


async def test_one_in_a_hundred_health_checks_and_keep_alives_is_logged(
    served: tuple[Process, Api],
) -> None:
    process, api = served
    for _ in range(SAMPLED + 1):
        assert api.get("/").status == 200
    update = {"job_id": api.new_job()["id"], "status": "running"}
    for key, status in ((INTERNAL_KEY, 200), ("wrong", 401)):
        for _ in range(3):
            reply = api.put("/_job_status", json=update, headers={"x-api-key": key})
            assert reply.status == status
    sampled: dict[str, list[int | None]] = {"/": [], "/_job_status": []}
    for record in await records_of(process):
        if record.get("route") in sampled and record["level"] != "debug":
            sampled[record["route"]].append(record.get("sampled"))
    assert sampled == {"/": [SAMPLED, SAMPLED], "/_job_status": [SAMPLED, None, None, None]}
