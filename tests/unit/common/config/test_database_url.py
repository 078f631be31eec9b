"""`DATABASE_URL`: what of libpq's options counts, and which files SQLite can have."""

from pathlib import Path
from typing import Any

import pytest

from common.config.environment import SettingsError
from tests.tools.deploy.settings import read


def read_database(url: str, secret: str = "") -> tuple[Any, Any]:
    """The settings of the database, and those of the logs."""
    (database, logs), _ = read("migrate", {"DATABASE_URL": url, "DATABASE_SECRET": secret})
    return database, logs


def refusal(url: str) -> str:
    with pytest.raises(SettingsError) as refused:
        read_database(url)
    return str(refused.value)


def test_options_of_the_driver_before_are_translated() -> None:
    database, logs = read_database(
        "postgresql+psycopg2://u@h/n?connect_timeout=7&application_name=cloud"
        "&options=-c%20statement_timeout%3D5000&sslmode=require&client_encoding=utf8"
    )
    assert database.connect_timeout == 7.0
    assert database.server_settings == {
        "application_name": "cloud",
        "options": "-c statement_timeout=5000",
    }
    assert database.url.query == {"dsn": "postgresql://?sslmode=require"}
    assert logs.warnings == ()


@pytest.mark.parametrize(
    "option", ["keepalives=1", "keepalives_idle=30", "gssencmode=disable", "client_encoding=latin1"]
)
def test_an_option_without_a_counterpart_is_ignored_with_a_warning(option: str) -> None:
    database, logs = read_database(f"postgresql://u@h/n?{option}")
    assert database.url.query == {}
    (warned,) = logs.warnings
    assert warned.event == "settings.option_ignored"
    assert dict(warned.fields)["option"] == option.partition("=")[0]


@pytest.mark.parametrize("seconds", ["0", "-1"])
def test_a_connect_timeout_without_limit_is_ours(seconds: str) -> None:
    assert read_database(f"postgresql://u@h/n?connect_timeout={seconds}")[0].connect_timeout == 5.0


def test_a_connect_timeout_that_is_no_number_is_refused() -> None:
    said = refusal("postgresql://u@h/n?connect_timeout=soon")
    assert said == "DATABASE_URL has a connect_timeout that is no whole number of seconds"


def test_an_option_that_no_driver_has_is_refused() -> None:
    said = refusal("postgresql://u@h/n?conect_timeout=1")
    assert said == (
        "DATABASE_URL has the option conect_timeout, which neither libpq nor asyncpg has"
    )


def test_the_drivers_own_options_are_passed_on() -> None:
    database, _ = read_database("postgresql://u@/n?host=/run/postgresql&command_timeout=9")
    assert database.url.query == {"host": "/run/postgresql", "command_timeout": "9"}


def test_secrets_among_the_options_stay_out_of_the_logs() -> None:
    _, logs = read_database("postgresql://u@h/n?password=planted-1&sslpassword=planted-2")
    assert {"planted-1", "planted-2"} <= set(logs.secrets)


@pytest.mark.parametrize(
    ("secret", "decoded"),
    [
        ("p%40ss%2Fword", "p@ss/word"), ("100%25", "100%"), ("plain", None), ("50%", None),
        ("a b%40", None), ("50%zz", None), ("", None),
    ],
)  # fmt: skip
def test_a_secret_may_be_percent_encoded_already(secret: str, decoded: str | None) -> None:
    database, logs = read_database("postgresql://u:{}@h/n", secret)
    assert (database.url.password or "") == secret
    assert (database.decoded and database.decoded.url.password) == decoded
    assert decoded is None or decoded in logs.secrets


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:secret@db/n", "db:5432"), ("postgresql://u@db:6000/n", "db:6000"),
        ("postgresql://u@/n?host=/run/postgresql", "/run/postgresql"), ("sqlite:///x.db", "x.db"),
        ("sqlite://", "memory"),
    ],
)  # fmt: skip
def test_the_place_is_host_and_port_or_the_file(url: str, place: str) -> None:
    assert read_database(url)[0].place == place


def test_the_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    monkeypatch.setattr("os.path.expanduser", lambda path: path.replace("~", str(tmp_path)))
    assert read_database("sqlite:///~/x.db")[0].url.database == f"{tmp_path}/x.db"
    said = refusal("sqlite:///~/none/x.db")
    assert (
        said
        == f"DATABASE_URL names {tmp_path}/none/x.db, but there is no directory {tmp_path}/none"
    )


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/none/x.db", "but there is no directory /none"),
        ("none/x.db", "but there is no directory none"),
        ("/etc/passwd/x.db", "but there is no directory /etc/passwd"),
        ("/etc", "which is a directory"),
    ],
)
def test_a_file_of_sqlite_that_cannot_be_is_refused(path: str, why: str) -> None:
    assert refusal(f"sqlite:///{path}") == f"DATABASE_URL names {path}, {why}"
