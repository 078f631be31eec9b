"""Processes that cannot start say why in one sentence."""

from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox.ports import free_port
from devtools.services import Process
from tests.support.dispatcher import environment


async def test_an_unreachable_database_ends_the_start(tmp_path: Path) -> None:
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
