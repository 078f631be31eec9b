"""Secrets that can be guessed: the placeholder is refused in production, a short one is logged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.config.environment import SettingsError
from common.config.settings import REPOSITORY
from tests.tools.deploy.settings import read

LONG = "a-secret-of-more-than-sixteen-characters"
COMPLETE = {
    "COGNITO_CLIENT_ID": "client",
    "COGNITO_USER_POOL_ID": "eu-central-1_pool",
    "INTERNAL_API_KEY_SECRET": LONG,
    "EMAIL_SENDER_SERVICE": "mailjet",
    "EMAIL_SENDER_ADDRESS": "cloud@example.org",
    "EMAIL_SENDER_API_KEY": LONG,
    "EMAIL_SENDER_SECRET_KEY": LONG,
}
SECRETS = [
    ("gateway", "INTERNAL_API_KEY_SECRET"),
    ("gateway", "COGNITO_SECRET"),
    ("dispatcher", "INTERNAL_API_KEY_SECRET"),
    ("notifier", "EMAIL_SENDER_API_KEY"),
    ("notifier", "EMAIL_SENDER_SECRET_KEY"),
    ("migrate", "DATABASE_SECRET"),
]


@pytest.mark.parametrize(("service", "name"), SECRETS)
@pytest.mark.parametrize("production", [{}, {"PROD": "true"}], ids=["unset", "true"])
def test_production_refuses_the_placeholder(
    service: str, name: str, production: dict[str, str]
) -> None:
    with pytest.raises(SettingsError, match=f"^{name} still has its placeholder[^;]*$"):
        read(service, {**COMPLETE, **production, name: "Change-Me"})


@pytest.mark.parametrize("value", ["change-me", '{"password": "CHANGE_ME"}', "changeme"])
def test_the_placeholder_is_known_in_every_spelling(value: str) -> None:
    with pytest.raises(SettingsError, match="placeholder"):
        read("notifier", {**COMPLETE, "EMAIL_SENDER_API_KEY": value})
    read("notifier", {**COMPLETE, "EMAIL_SENDER_API_KEY": value, "PROD": "0"})


def test_a_placeholder_inside_the_databases_url_is_refused() -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL still has its placeholder"):
        read("migrate", {"DATABASE_URL": "postgresql://u:change-me@h/n"})


def test_only_short_secrets_count_as_short() -> None:
    given = {"INTERNAL_API_KEY_SECRET": "fifteen-letters", "COGNITO_SECRET": "sixteen--letters"}
    settings, _ = read("gateway", {**COMPLETE, **given})
    assert settings.logs.short_secrets == ("INTERNAL_API_KEY_SECRET",)


def test_a_start_warns_of_a_short_secret_by_its_name(tmp_path: Path) -> None:
    started = subprocess.run(
        [sys.executable, "-m", "common.migrate", "current"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "DATABASE_SECRET": "brief", "LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=True,
    )
    warning, _ = started.stdout.splitlines()
    assert "brief" not in warning
    line = json.loads(warning)
    assert (line["event"], line["level"]) == ("settings.secret_short", "warning")
    assert line["variable"] == "DATABASE_SECRET"
