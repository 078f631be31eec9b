"""`--check` tries everything out, says what is wrong, and starts and leaves nothing."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.sandbox.ports import free_port
from devtools.postgres import Server
from devtools.services import Process
from devtools.user_pool import trust
from tests.support import notifier as notifier_support
from tests.support.dispatcher import FakePeer
from tests.support.gateway import APPLICATIONS
from tests.support.key_server import KeyServer
from tests.support.notifier import FakeMailjet

CLOSED = f"http://127.0.0.1:{free_port()}"
SECRET = "planted-secret-of-the-database"


@pytest.fixture
def settings(sqlite_url: str, key_server: KeyServer, tmp_path: Path) -> dict[str, Any]:
    """A deployment without its two peers."""
    applications = tmp_path / "applications.yaml"
    applications.write_text(yaml.safe_dump(APPLICATIONS))
    return {
        **trust(key_server.url),
        "DATABASE_URL": sqlite_url,
        "USER_DATA_ROOT_PATH": tmp_path / "root",
        "APPLICATION_CONFIG_FILE": applications,
    }


async def check(service: str, settings: Mapping[str, Any], folder: Path) -> tuple[int, str]:
    """Exit status and output."""
    process = Process(service, settings, folder, arguments=["--check"])
    return await process.wait(), process.output


def outcomes(output: str) -> list[tuple[str, ...]]:
    """Status and name of each check; the tests' keys are short, of which it warns."""
    lines = [line for line in output.splitlines() if "EMAIL_SENDER_API_KEY is short" not in line]
    return [tuple(line.split()[:2]) for line in lines]


async def test_every_service_finds_a_working_deployment_fine(
    settings: dict[str, Any], sqlite_url: str, tmp_path: Path
) -> None:
    async with FakePeer().served() as peer, FakeMailjet().served() as mailjet:
        settings |= notifier_support.environment(sqlite_url, mailjet.url)
        settings |= {"WORKERFACING_API_URL": peer.url}
        for service, names in (
            ("gateway", ["settings", "applications", "database", "storage", "keys"]),
            ("dispatcher", ["settings", "applications", "database", "storage", "peer"]),
            ("notifier", ["settings", "database", "mail"]),
        ):
            status, output = await check(service, settings, tmp_path)
            assert (status, outcomes(output)) == (0, [("ok", name) for name in names]), output
        assert (peer.tried, mailjet.sent, len(mailjet.requests)) == ([], [], 1)
    assert [path.name for path in (tmp_path / "root").rglob("*")] == [".opencloud-staging"]


BROKEN: list[tuple[str, str, dict[str, Any], str]] = [
    (
        "gateway",
        "database",
        {"DATABASE_URL": "postgresql://u:{}@127.0.0.1:1/n", "DATABASE_SECRET": SECRET},
        "127.0.0.1:1: connection refused",
    ),
    (
        "gateway",
        "storage",
        {"USER_DATA_ROOT_PATH": "/etc/passwd"},
        "USER_DATA_ROOT_PATH /etc/passwd: not a directory",
    ),
    ("gateway", "keys", {"COGNITO_JWKS_URL": f"{CLOSED}/keys"}, f"{CLOSED}/keys: Cannot connect"),
    (
        "gateway",
        "applications",
        {"APPLICATION_CONFIG_FILE": "/none.yaml"},
        "APPLICATION_CONFIG_FILE: /none.yaml cannot be read (No such file or directory)",
    ),
    ("dispatcher", "peer", {"WORKERFACING_API_URL": CLOSED}, f"WORKERFACING_API_URL {CLOSED}: "),
    (
        "dispatcher",
        "storage",
        {"USER_DATA_ROOT_PATH": "/proc/nope", "WORKERFACING_API_URL": "peer"},
        "USER_DATA_ROOT_PATH /proc/nope: no such file or directory",
    ),
    (
        "notifier",
        "mail",
        {"EMAIL_SENDER_SECRET_KEY": SECRET},
        "as cloud@example.org: HTTP 401",
    ),
    (
        "notifier",
        "database",
        {"DATABASE_URL": "sqlite:////proc/none.db"},
        "/proc/none.db cannot be created",
    ),
]


@pytest.mark.parametrize(
    ("service", "name", "broken", "found"),
    BROKEN,
    ids=[f"{service}-{name}" for service, name, _, __ in BROKEN],
)
async def test_what_is_broken_is_the_only_failure(
    settings: dict[str, Any],
    sqlite_url: str,
    tmp_path: Path,
    service: str,
    name: str,
    broken: dict[str, Any],
    found: str,
) -> None:
    async with FakePeer().served() as peer, FakeMailjet().served() as mailjet:
        settings |= notifier_support.environment(sqlite_url, mailjet.url)
        settings |= {"WORKERFACING_API_URL": peer.url} | broken
        if settings["WORKERFACING_API_URL"] == "peer":
            settings["WORKERFACING_API_URL"] = peer.url
        status, output = await check(service, settings, tmp_path)
    assert status == 1
    assert [line for line in outcomes(output) if line[0] != "ok"] == [("FAIL", name)], output
    assert re.search(f"^FAIL  {name} +.*{re.escape(found)}", output, re.MULTILINE), output
    assert SECRET not in output
    assert "Traceback" not in output


async def test_wrong_settings_are_the_only_line(settings: dict[str, Any], tmp_path: Path) -> None:
    settings |= {"PORT": "x", "FILESYSTEM": "ftp"}
    status, output = await check("gateway", settings, tmp_path)
    assert (status, outcomes(output)) == (1, [("FAIL", "settings")])
    assert "PORT is wrong" in output
    assert "FILESYSTEM must be" in output


async def test_what_is_only_odd_is_a_warning(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATABSE_URL=sqlite:///x.db")
    settings |= {"COGNITO_SECRET": "short"}
    status, output = await check("gateway", settings, tmp_path)
    assert (status, outcomes(output)[:3]) == (0, [("warn", "settings")] * 2 + [("ok", "settings")])
    assert "COGNITO_SECRET is short" in output
    assert "variable=DATABSE_URL, likely=DATABASE_URL" in output


async def test_a_missing_migration_is_a_failure_and_sqlites_is_none(
    settings: dict[str, Any], postgres: Server, tmp_path: Path
) -> None:
    name = postgres.create_database()
    _, output = await check(
        "gateway", {**settings, "DATABASE_URL": postgres.url_of(name)}, tmp_path
    )
    postgres.drop_database(name)
    assert re.search("^FAIL  database .* run python -m common.migrate$", output, re.MULTILINE)

    file = tmp_path / "new.db"
    _, output = await check("gateway", {**settings, "DATABASE_URL": f"sqlite:///{file}"}, tmp_path)
    assert "new.db is created at the start" in output
    assert not file.exists()


async def test_a_bucket_is_written_to_and_left_as_it_was(
    settings: dict[str, Any], aws_url: str, tmp_path: Path
) -> None:
    from deploy.sandbox.aws import client, create_bucket

    create_bucket(aws_url, "clouds-to-check")
    settings |= {"FILESYSTEM": "s3", "USER_DATA_ROOT_PATH": "/data", "AWS_ENDPOINT_URL": aws_url}
    settings |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    for bucket, line in (
        ("clouds-to-check", "ok    storage       s3://clouds-to-check//data"),
        ("none", "FAIL  storage       S3_BUCKET none: S3 has no such bucket"),
    ):
        _, output = await check("gateway", {**settings, "S3_BUCKET": bucket}, tmp_path)
        assert re.search(f"^{line}$", output, re.MULTILINE), output
    s3 = client("s3", aws_url)
    assert "Contents" not in s3.list_objects_v2(Bucket="clouds-to-check")
    s3.close()


@pytest.mark.parametrize("service", ["gateway", "dispatcher", "notifier"])
async def test_help_and_version_need_no_settings(tmp_path: Path, service: str) -> None:
    for option, found in (("--version", f"{service} 1.0.0\n"), ("--help", "--check")):
        process = Process(service, {}, tmp_path, arguments=[option])
        assert await process.wait() == 0
        assert found in process.output
    process = Process(service, {}, tmp_path, arguments=["--nonsense"])
    assert await process.wait() == 2
