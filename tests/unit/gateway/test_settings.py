"""Settings: what is required, what is understood, and one sentence for what is wrong."""

import re
from pathlib import Path
from typing import Any

import pytest

import dispatcher.settings
import gateway.settings
import notifier.settings
from common.config.environment import Reader, SettingsError, load_or_exit
from common.config.settings import REPOSITORY
from tests.support.gateway import read_settings

REQUIRED = {
    "COGNITO_CLIENT_ID": "client",
    "COGNITO_USER_POOL_ID": "eu-central-1_pool",
    "INTERNAL_API_KEY_SECRET": "key",
}
SERVICES = [gateway.settings, dispatcher.settings, notifier.settings]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment with the required variables alone."""
    environ = dict(REQUIRED)
    monkeypatch.setattr("os.environ", environ)
    return environ


def load(**changes: str) -> gateway.settings.Settings:
    return read_settings({**REQUIRED, **changes})


def test_the_defaults_are_the_contracts() -> None:
    settings = load()
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert settings.frontend_origin == "http://localhost:8080"
    assert settings.account_endpoints is False
    assert settings.storage.kind == "local"
    assert settings.storage.region == "eu-central-1"
    assert settings.database.url.render_as_string() == "sqlite+aiosqlite:///./sql_app.db"
    assert settings.applications == str(REPOSITORY / "application_config.yaml")
    issuer = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_pool"
    assert settings.cognito.issuer == issuer
    assert settings.cognito.jwks_url == f"{issuer}/.well-known/jwks.json"


def test_the_issuer_is_derived_even_when_the_keys_are_elsewhere() -> None:
    settings = load(COGNITO_JWKS_URL="http://keys.example/jwks.json", COGNITO_REGION="us-east-1")
    assert settings.cognito.jwks_url == "http://keys.example/jwks.json"
    assert (
        settings.cognito.issuer == "https://cognito-idp.us-east-1.amazonaws.com/eu-central-1_pool"
    )


@pytest.mark.parametrize(
    ("prod", "auth", "on"),
    [
        (None, None, False), ("false", None, True), ("true", None, False), ("0", None, True),
        ("1", None, False), ("", "", False), ("true", "1", True), ("false", "0", False),
        (None, "1", True), (None, "0", False), ("false", "", True), ("false", "false", False),
    ],
)  # fmt: skip
def test_the_account_endpoints_are_on_outside_production(
    prod: str | None, auth: str | None, on: bool
) -> None:
    given = {name: value for name, value in (("PROD", prod), ("AUTH", auth)) if value is not None}
    assert load(**given).account_endpoints is on


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("", ""), ("  ", ""), ("https://a.example", "https://a.example"),
        ("https://A.Example:8443/app/?x#y", "https://a.example:8443"),
        ("http://a.example:80/", "http://a.example"),
        ("https://a.example:443/app", "https://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("HTTPS://A.Example/", "https://a.example"), ("hTTp://a.example:80", "http://a.example"),
    ],
)  # fmt: skip
def test_the_front_end_is_an_origin(url: str, origin: str) -> None:
    assert load(FRONTEND_URL=url).frontend_origin == origin


@pytest.mark.parametrize(
    ("secret", "value"),
    [("plain", "plain"), ('{"password": "p:@/%", "username": "x"}', "p:@/%"), ("p@ss", "p@ss")],
)
def test_a_secret_fills_the_databases_url_encoded(secret: str, value: str) -> None:
    settings = load(DATABASE_URL="postgresql://postgres:{}@host:5432/name", DATABASE_SECRET=secret)
    url = settings.database.url
    assert (url.password, url.host, url.port, url.database) == (value, "host", 5432, "name")
    assert value in settings.logs.secrets


@pytest.mark.parametrize(
    ("stale_after", "margin", "seconds"),
    [("", "", 30.0), ("40", "", 10.0), ("40", "8", 2.0), ("1000", "0", 0.0)],
)
def test_signs_of_life_are_written_often_enough_for_no_job_to_look_stalled(
    stale_after: str, margin: str, seconds: float
) -> None:
    assert load(STALE_AFTER=stale_after, SILENCE_MARGIN=margin).touch_every == seconds


def test_secrets_may_be_wrapped_in_json_and_are_in_no_repr() -> None:
    settings = load(
        DATABASE_URL="postgresql://u:{}@h/n",
        DATABASE_SECRET="planted-1",
        INTERNAL_API_KEY_SECRET='{"password": "planted-2"}',
        COGNITO_SECRET='{"password": "planted-3"}',
    )
    assert (settings.internal_api_key, settings.cognito.client_secret) == ("planted-2", "planted-3")
    assert "planted" not in repr(settings)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"COGNITO_CLIENT_ID": ""}, "COGNITO_CLIENT_ID is missing"),
        ({"COGNITO_USER_POOL_ID": " "}, "COGNITO_USER_POOL_ID is missing"),
        ({"INTERNAL_API_KEY_SECRET": ""}, "INTERNAL_API_KEY_SECRET is missing"),
        ({"INTERNAL_API_KEY_SECRET": "{}"}, "INTERNAL_API_KEY_SECRET cannot be read"),
        ({"FILESYSTEM": "ftp"}, "FILESYSTEM must be 'local' or 's3'"),
        ({"FILESYSTEM": "s3"}, "S3_BUCKET is missing"),
        ({"PORT": "x"}, "PORT is wrong"),
        ({"PORT": "70000"}, "PORT must be at most"),
        ({"PROD": "maybe"}, "PROD is wrong"),
        ({"AUTH": "maybe"}, "AUTH is wrong"),
        ({"DATABASE_URL": "mysql://x/y"}, "DATABASE_URL is not"),
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL is not"),
        ({"FRONTEND_URL": "localhost:8080"}, "FRONTEND_URL must start with"),
        ({"FRONTEND_URL": "http://[::1"}, "FRONTEND_URL must name a host"),
        ({"FRONTEND_URL": "http://a,http://b"}, "FRONTEND_URL must be one address, not a list"),
        ({"FRONTEND_URL": "http://a http://b"}, "FRONTEND_URL must be one address, not a list"),
        ({"FRONTEND_URL": "http://a;b"}, "FRONTEND_URL must be one address, not a list"),
        ({"COGNITO_JWKS_URL": "http://a,b/k"}, "COGNITO_JWKS_URL must name a host"),
        ({"COGNITO_USER_POOL_ID": "pool"}, "COGNITO_USER_POOL_ID must be a region and an id"),
        ({"COGNITO_USER_POOL_ID": "eu-central-1_"}, "COGNITO_USER_POOL_ID must be a region and"),
        ({"COGNITO_USER_POOL_ID": "a/b_c"}, "COGNITO_USER_POOL_ID must be a region and an id"),
        ({"COGNITO_JWKS_URL": "ftp://x"}, "COGNITO_JWKS_URL must start with"),
        ({"COGNITO_JWKS_URL": "https:///keys"}, "COGNITO_JWKS_URL must name a host"),
        ({"S3_PUBLIC_ENDPOINT_URL": "http://a b"}, "S3_PUBLIC_ENDPOINT_URL must name a host"),
        ({"TRUSTED_PROXIES": "127.0.0.1, x"}, "TRUSTED_PROXIES holds 'x'"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL must be"),
        ({"MAX_BODY_BYTES": "1"}, "MAX_BODY_BYTES must be at least"),
        ({"PORT": "9000"}, "PORT and ADMIN_PORT must differ, both are 9000"),
        ({"INTERNAL_PORT": "8000"}, "PORT and INTERNAL_PORT must differ, both are 8000"),
        ({"ADMIN_PORT": "81", "INTERNAL_PORT": "81"}, "ADMIN_PORT and INTERNAL_PORT must differ"),
    ],
    ids=str,
)
def test_a_wrong_variable_is_named(changes: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=r"^[^\n]*$") as caught:
        load(**changes)
    assert named in str(caught.value)


def test_all_wrong_variables_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load(PORT="x", PROD="maybe", COGNITO_CLIENT_ID="")
    assert all(name in str(caught.value) for name in ("PORT", "PROD", "COGNITO_CLIENT_ID"))


def test_a_dotenv_in_the_working_directory_counts(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / ".env").write_text("FILESYSTEM=ftp")
    monkeypatch.chdir(tmp_path)
    for changes, sentence in (
        ({}, "FILESYSTEM must be 'local' or 's3', not 'ftp'"),
        ({"FILESYSTEM": "s3"}, "S3_BUCKET is missing"),  # the environment wins
    ):
        environ.pop("FILESYSTEM", None)
        environ.update(changes)
        with pytest.raises(SystemExit):
            load_or_exit("gateway", gateway.settings.load)
        assert capsys.readouterr().err == f"gateway: settings: {sentence}.\n"


@pytest.mark.parametrize(
    ("written", "likely"),
    [
        ("DATABSE_URL", "DATABASE_URL"), ("FRONT_END_URL", "FRONTEND_URL"), ("prod", "PROD"),
        ("EMAIL_SENDER_SECRET", "EMAIL_SENDER_SECRET_KEY"),
        ("USER_DATA_ROOT", "USER_DATA_ROOT_PATH"),
        ("DATABASE_URL", None), ("HANDOVER_TIMEOUT", None), ("AWS_REGION", None), ("EDITOR", None),
    ],
)  # fmt: skip
def test_a_misspelt_name_in_the_dotenv_is_logged_with_the_one_that_was_meant(
    environ: Any, tmp_path: Path, written: str, likely: str | None
) -> None:
    (tmp_path / ".env").write_text(f"{written}=2\n")
    warned = [dict(item.fields) for item in Reader(dotenv=tmp_path / ".env").warnings]
    assert [(item["variable"], item["likely"]) for item in warned] == (
        [(written, likely)] if likely else []
    )


@pytest.mark.parametrize(
    ("region", "pool", "warned"),
    [
        ("us-east-1", "eu-central-1_x", True), ("eu-central-1", "eu-central-1_x", False),
        ("us-gov-west-1", "us-gov-west-1_x", False), ("us-east-1", "local_x", False),
    ],
)  # fmt: skip
def test_a_pool_of_another_region_is_logged(region: str, pool: str, warned: bool) -> None:
    settings = load(COGNITO_REGION=region, COGNITO_USER_POOL_ID=pool)
    events = [item.event for item in settings.logs.warnings]
    assert events == ["settings.region_differs"] * warned


@pytest.mark.parametrize(
    ("text", "rate"),
    [("", None), (" ", None), (" 600/60 ", (600, 60)), ("1/999999999", (1, 999999999))],
)
def test_a_rate_is_requests_in_seconds(environ: Any, text: str, rate: Any) -> None:
    assert load(RATE_LIMIT=text).limits.rate == rate


@pytest.mark.parametrize(
    "text",
    [
        *("600", "600/", "/60", "600/60/1", "ten/60", "600 / 60", "-1/60", "+1/60", "1.5/60"),
        *("0/60", "600/0", "1e3/60", "6_0/60", "٣/60", "9999999999/60", "600/60\n60"),
    ],
)
def test_what_is_no_rate_is_refused_with_an_example(environ: Any, text: str) -> None:
    with pytest.raises(SettingsError, match="RATE_LIMIT must be requests/seconds, such as 600/60"):
        load(RATE_LIMIT=text)


# -- .env.example --------------------------------------------------------------------------------

EXAMPLE = REPOSITORY / ".env.example"


def exemplified() -> dict[str, str]:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and line[0] != "#"]
    pairs = [line.split("=", 1) for line in lines]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_the_example_lists_exactly_the_variables_that_are_read(environ: dict[str, str]) -> None:
    names: set[str] = set()
    for service in SERVICES:
        reader = Reader()
        service.load(reader)
        names |= reader.names
    assert set(exemplified()) == names


@pytest.mark.parametrize("service", SERVICES, ids=lambda module: module.__name__)
def test_the_example_can_be_used_as_it_is(monkeypatch: pytest.MonkeyPatch, service: Any) -> None:
    monkeypatch.setattr("os.environ", exemplified())
    reader = Reader()
    settings = service.load(reader)
    reader.check()
    assert settings
    if service is gateway.settings:
        assert settings.account_endpoints is True


def test_the_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the required variables, and PROD; mails link to no front end by default."""
    shown = exemplified()
    kept = ("USER_DATA_ROOT_PATH", "FRONTEND_URL")
    asked = {**REQUIRED, "PROD": "false", **{name: shown[name] for name in kept}}
    for service in SERVICES:
        monkeypatch.setattr("os.environ", dict(asked))
        plain = service.load(Reader())
        monkeypatch.setattr("os.environ", {**shown, **asked})
        assert service.load(Reader()) == plain


def test_every_group_of_variables_is_explained() -> None:
    for block in EXAMPLE.read_text().split("\n\n"):
        if "=" in re.sub("^#.*$", "", block, flags=re.MULTILINE):
            assert "#" in block or block.startswith(("COGNITO", "WORKERFACING", "LOG"))
