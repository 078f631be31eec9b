"""A gateway for the whole run, of each kind of database; callers with trees of their own."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.sandbox import aws
from deploy.sandbox.ports import free_port
from devtools.services import Process
from devtools.user_pool import Issuer, trust
from tests.support.gateway import APPLICATIONS, FRONTEND, Api, Gateway, fresh
from tests.support.key_server import KeyServer

StartGateway = Callable[..., Gateway]
StartProcess = Callable[..., Process]

NO_AWS = "http://127.0.0.1:1"


@pytest.fixture(scope="session")
def environment(key_server: KeyServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings that every gateway needs but those of its own database and users' files."""
    applications = tmp_path_factory.mktemp("applications") / "applications.yaml"
    applications.write_text(yaml.safe_dump(APPLICATIONS))
    return {
        **trust(key_server.url),
        "APPLICATION_CONFIG_FILE": str(applications),
        "ADMIN_PORT": "0",
        "FRONTEND_URL": FRONTEND,
    }


@pytest.fixture(scope="session", params=["sqlite"])
def gateway(
    request: pytest.FixtureRequest,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A running gateway; `on_both_databases` marks the tests that run it on PostgreSQL, too, and
    `on_both_storages` those that run it with its files on a stand-in for S3."""
    folder = tmp_path_factory.mktemp(f"gateway-{request.param}")
    with ExitStack() as stack:
        own = own_places(folder)
        if request.param == "postgresql":
            server = request.getfixturevalue("postgres")
            name = server.create_database(template=request.getfixturevalue("postgres_template"))
            stack.callback(server.drop_database, name)
            own["DATABASE_URL"] = server.url_of(name)
        else:
            shutil.copy(request.getfixturevalue("sqlite_template"), folder / "opencloud.db")
        with pytest.MonkeyPatch.context() as patch:  # clients of AWS read it when they are made
            if request.param == "s3":
                endpoint = stack.enter_context(aws.moto_server())
                aws.create_bucket(endpoint, "files")
                own |= {"FILESYSTEM": "s3", "S3_BUCKET": "files", "USER_DATA_ROOT_PATH": "users"}
                for name, value in aws.environment(endpoint).items():
                    patch.setenv(name, value)
            running = stack.enter_context(Gateway({**environment, **own}))
        yield running


@pytest.fixture
def start_gateway(
    environment: dict[str, str],
    sqlite_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[StartGateway]:
    """Starts a gateway with settings of its own; None as a value leaves one out."""
    for name, value in aws.environment(NO_AWS).items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:

        def start(**changes: str | None) -> Gateway:
            folder = tmp_path / fresh("gateway")
            folder.mkdir()
            shutil.copy(sqlite_template, folder / "opencloud.db")
            settings = {**environment, **own_places(folder), **changes}
            kept = {name: value for name, value in settings.items() if value is not None}
            return stack.enter_context(Gateway(kept))

        yield start


@pytest.fixture
def start_process(
    environment: dict[str, str], sqlite_template: Path, tmp_path: Path
) -> Iterator[StartProcess]:
    """Starts a gateway as a process; None as a value leaves a setting out."""
    shutil.copy(sqlite_template, tmp_path / "opencloud.db")
    local = {"HOST": "127.0.0.1", "ADMIN_HOST": "127.0.0.1", **own_places(tmp_path)}
    started: list[Process] = []

    def start(*, admin_port: int | None = None, **changes: Any) -> Process:
        settings = {**environment, **local, "PORT": free_port(), **changes}
        kept = {name: value for name, value in settings.items() if value is not None}
        started.append(Process("gateway", kept, tmp_path, admin_port=admin_port))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def own_places(folder: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{folder}/opencloud.db",
        "USER_DATA_ROOT_PATH": str(folder / "users"),
    }


@pytest.fixture
def new_user(gateway: Gateway, issuer: Issuer) -> Callable[[], Api]:
    """Makes callers with trees of their own."""

    def make() -> Api:
        user = fresh("user")
        api = Api(gateway, user, issuer.token(user))
        assert api.get("/files/").status == 200  # the tree is there
        return api

    return make


@pytest.fixture
def api(new_user: Callable[[], Api]) -> Api:
    return new_user()


@pytest.fixture
def other(new_user: Callable[[], Api]) -> Api:
    """Another user."""
    return new_user()


@pytest.fixture
def anybody(gateway: Gateway) -> Api:
    """A caller without a token."""
    return Api(gateway)
