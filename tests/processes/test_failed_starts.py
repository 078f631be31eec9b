"""Processes that cannot start say why in one sentence."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from common.config.settings import VERSION
from deploy.sandbox.ports import free_port
from devtools.services import Process
from devtools.user_pool import trust
from tests.support.dispatcher import environment


async def test_an_unreachable_database_ends_the_start(tmp_path: Path) -> None:
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/nothing"
    settings = environment(url, "http://127.0.0.1:1", tmp_path, DATABASE_STARTUP_TIMEOUT=0.5)
    process = Process("dispatcher", settings, tmp_path)
    assert await process.wait() == 1
    place = url.partition("@")[2].partition("/")[0]
    sentence = f"dispatcher: the database did not answer ({place}: connection refused).\n"
    assert process.output.endswith(sentence)
    assert "Traceback" not in process.output


@pytest.mark.parametrize(
    ("service", "settings", "sentence"),
    [
        ("dispatcher", {}, "INTERNAL_API_KEY_SECRET is missing"),
        (
            "notifier",
            {"EMAIL_SENDER_SERVICE": "pigeon"},
            "EMAIL_SENDER_SERVICE must be 'mailjet' or empty, not 'pigeon'",
        ),
        (
            "notifier",
            {"DATABASE_URL": "sqlite:///none/x.db"},
            "DATABASE_URL names none/x.db, but there is no directory none",
        ),
    ],
)
async def test_a_wrong_setting_ends_the_start(
    tmp_path: Path, service: str, settings: dict[str, Any], sentence: str
) -> None:
    process = Process(service, settings, tmp_path)
    assert await process.wait() == 1
    assert process.output == f"{service}: settings: {sentence}.\n"


@pytest.mark.parametrize("service", ["gateway", "dispatcher"])
@pytest.mark.parametrize(
    ("root", "reason"),
    [("/proc/nope", "no such file or directory"), ("/etc/passwd", "not a directory")],
)
async def test_a_root_that_cannot_be_ends_the_start(
    tmp_path: Path, sqlite_url: str, service: str, root: str, reason: str
) -> None:
    settings = environment(sqlite_url, "http://127.0.0.1:1", tmp_path, USER_DATA_ROOT_PATH=root)
    settings |= trust("http://127.0.0.1:1") | {"HOST": "127.0.0.1", "PORT": free_port()}
    process = Process(service, settings, tmp_path)
    assert await process.wait() == 1
    assert process.output.endswith(f"{service}: USER_DATA_ROOT_PATH {root}: {reason}.\n")
    assert "Traceback" not in process.output


async def test_a_missing_bucket_ends_the_start_and_an_outage_of_s3_does_not(
    tmp_path: Path, sqlite_url: str, aws_url: str
) -> None:
    settings = environment(sqlite_url, "http://127.0.0.1:1", tmp_path, FILESYSTEM="s3")
    settings |= {"S3_BUCKET": "none", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    process = Process("dispatcher", {**settings, "AWS_ENDPOINT_URL": aws_url}, tmp_path)
    assert await process.wait() == 1
    assert process.output.endswith("dispatcher: S3_BUCKET none: S3 has no such bucket.\n")

    away = f"http://127.0.0.1:{free_port()}"
    process = Process("dispatcher", {**settings, "AWS_ENDPOINT_URL": away}, tmp_path)
    try:
        await process.wait_until_ready()
        assert '"event":"storage.unavailable"' in process.output
    finally:
        process.kill()


async def test_the_start_names_what_it_uses_without_secrets(
    tmp_path: Path, sqlite_url: str
) -> None:
    peer = "http://user:planted-secret@127.0.0.1:1"
    process = Process("dispatcher", environment(sqlite_url, peer, tmp_path), tmp_path)
    try:
        await process.wait_until_ready()
    finally:
        process.kill()
    lines = map(orjson.loads, process.output.splitlines())
    line = next(line for line in lines if line["event"] == "settings.read")
    assert line["version"] == VERSION
    assert line["database"] == sqlite_url
    assert line["storage"] == str(tmp_path / "user_data")
    assert line["peer"] == "http://127.0.0.1:1"
    assert "planted" not in process.output
