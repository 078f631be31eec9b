"""Processes that cannot start say why in one sentence."""

from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox.ports import free_port
from devtools.services import Process
from tests.support.cloud import Cloud, on_sqlite
from tests.support.dispatcher import FakePeer, environment


@on_sqlite
async def test_a_taken_port_ends_the_start(cloud: Cloud, peer: FakePeer, tmp_path: Path) -> None:
    first = cloud.dispatcher()
    await first.wait_until_ready()
    settings = environment(cloud.database_url, peer.url, tmp_path)
    second = Process("dispatcher", settings, tmp_path, admin_port=first.admin_port)
    assert await second.wait() == 1
    assert second.output.count("\n") == 1
    assert "cannot listen on 127.0.0.1" in second.output


async def test_a_database_that_stays_away_ends_the_start(tmp_path: Path) -> None:
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/nothing"
    settings = environment(url, "http://127.0.0.1:1", tmp_path, DATABASE_STARTUP_TIMEOUT=0.5)
    process = Process("dispatcher", settings, tmp_path)
    assert await process.wait() == 1
    assert "dispatcher: the database did not answer" in process.output
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
    ],
)
async def test_a_wrong_setting_ends_the_start(
    tmp_path: Path, service: str, settings: dict[str, Any], sentence: str
) -> None:
    process = Process(service, settings, tmp_path)
    assert await process.wait() == 1
    assert process.output == f"{service}: settings: {sentence}.\n"
