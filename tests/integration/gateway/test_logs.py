"""What is logged, and what never is: the secrets of all settings, tokens, bodies."""

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest

from common.config.settings import REPOSITORY
from deploy.sandbox.ports import free_port
from gateway.http.request_log import SAMPLED
from tests.support.gateway import Api, Issuer, KeyServer, multipart, wait_for_port

SECRETS = {
    "INTERNAL_API_KEY_SECRET": "planted-internal-key",
    "COGNITO_SECRET": "planted-cognito-secret",
    "DATABASE_SECRET": "planted-database-secret",
    "AWS_ACCESS_KEY_ID": "planted-access-key",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-key",
}


class Served:
    """The attributes of a gateway that `Api` uses."""

    def __init__(self, port: int, root: Path) -> None:
        self.port, self.root = port, root


@pytest.fixture
def process(environment: dict[str, str], sqlite_template: Path, tmp_path: Path):
    """A gateway in a process of its own, its admin port, and a function that ends it and returns
    its lines."""
    shutil.copy(sqlite_template, tmp_path / "opencloud.db")
    port, admin = free_port(), free_port()
    own = {
        "PYTHONPATH": str(REPOSITORY),
        "PROD": "false",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "ADMIN_PORT": str(admin),
        "DATABASE_URL": "sqlite:///./opencloud.db",
        "USER_DATA_ROOT_PATH": str(tmp_path / "users"),
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
    }
    running = subprocess.Popen(
        [sys.executable, "-m", "gateway"],
        cwd=tmp_path,
        env={**environment, **own, **SECRETS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def end() -> list[str]:
        running.send_signal(signal.SIGTERM)
        lines, _ = running.communicate(timeout=30)
        return lines.splitlines()

    try:
        wait_for_port(port, running)
        yield Served(port, tmp_path / "users"), admin, end
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 0


def test_no_secret_token_or_body_is_ever_shown(
    process, issuer: Issuer, key_server: KeyServer
) -> None:
    gateway, admin, end = process
    token = issuer.token("somebody")
    api = Api(gateway, "somebody", token)
    body, kind = multipart("f.txt", b"planted-content")
    secret = SECRETS["INTERNAL_API_KEY_SECRET"]
    update = {"job_id": 1, "status": "running", "runtime_details": "planted-details"}
    anybody = Api(gateway)
    replies = [
        api.get("/user"),
        api.get("/user", headers={"Authorization": f"Bearer {token}x"}),
        api.get("/user", headers={"Cookie": f"Authorization=Bearer {token}"}),
        api.post("/files/data/x/upload", body=body, headers={"Content-Type": kind}),
        api.post("/jobs", json={"job_name": "planted-body"}),
        api.put("/files/data/none", json={"path": 3}),
        api.get("/jobs?limit=planted-query"),
        anybody.put("/_job_status", json=update, headers={"x-api-key": secret}),
        anybody.put("/_job_status", json=update, headers={"x-api-key": f"{secret}-wrong"}),
        anybody.post("/token", json={"email": "me@example.com", "password": "planted-password"}),
        anybody.get("/docs"),
        anybody.get("/openapi.json"),
        anybody.get("/access_info"),
    ]
    assert {reply.status // 100 for reply in replies} >= {2, 4}
    shown = [reply.text for reply in replies]
    for probe in ("livez", "readyz", "metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/{probe}") as answer:
            shown.append(answer.read().decode())
    lines = end()
    for text in [*shown, *lines]:
        assert "planted" not in text
        assert token not in text
        assert token.split(".")[2] not in text


def test_each_line_is_json_and_each_request_has_one(process, issuer: Issuer) -> None:
    gateway, _, end = process
    api = Api(gateway, "somebody", issuer.token("somebody"))
    api.get("/files/", headers={"X-Request-ID": "first-request"})
    api.get("/jobs/x", headers={"X-Request-ID": "second-request"})
    body, kind = multipart("", b"", disposition=b"form-data; name=\"file\"; filename*=UTF-8''%80")
    api.post("/files/data/x/upload", body=body, headers={"Content-Type": kind})
    records = [json.loads(line) for line in end()]
    assert all(record["service"] == "gateway" for record in records)
    answered = {
        record["request_id"]: record for record in records if record["event"] == "request.answered"
    }
    first, second = answered["first-request"], answered["second-request"]
    assert (first["method"], first["path"], first["status"]) == ("GET", "/files/", 200)
    assert (second["route"], second["status"]) == ("/jobs/{job_id}", 422)
    assert first["user_id"] == second["user_id"] == "somebody"
    assert records[-1]["event"] == "process.stopped"


def test_of_health_checks_and_keep_alives_one_in_a_hundred_is_logged(
    process, issuer: Issuer
) -> None:
    gateway, _, end = process
    api, anybody = Api(gateway, "somebody", issuer.token("somebody")), Api(gateway)
    for _ in range(SAMPLED + 1):
        assert anybody.get("/").status == 200
    update = {"job_id": api.new_job()["id"], "status": "running"}
    for key, status in ((SECRETS["INTERNAL_API_KEY_SECRET"], 200), ("wrong", 401)):
        for _ in range(3):
            reply = anybody.put("/_job_status", json=update, headers={"x-api-key": key})
            assert reply.status == status
    answered = [
        record
        for record in map(json.loads, end())
        if record["event"] == "request.answered" and record["level"] != "debug"
    ]
    of = {
        route: [record.get("sampled") for record in answered if record["route"] == route]
        for route in ("/", "/_job_status")
    }
    assert of == {"/": [SAMPLED, SAMPLED], "/_job_status": [SAMPLED, None, None, None]}


def test_the_probes_say_that_it_is_ready(process) -> None:
    _, admin, end = process
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz") as answer:
        report = json.load(answer)
    assert report["ready"] is True
    assert report["database"]["ok"] is True
    assert report["storage"]["ok"] is True
    end()
    with pytest.raises(URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{admin}/livez")
