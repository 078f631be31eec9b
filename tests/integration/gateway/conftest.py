"""A gateway for the whole run, of each kind of database; callers whose trees nobody else uses."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from deploy.sandbox import aws
from devtools.user_pool import Issuer, trust
from tests.support.gateway import APPLICATIONS, FRONTEND, Api, Gateway, fresh
from tests.support.key_server import KeyServer

StartGateway = Callable[..., Gateway]


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
        if request.param == "postgresql":
            server = request.getfixturevalue("postgres")
            name = server.create_database(template=request.getfixturevalue("postgres_template"))
            stack.callback(server.drop_database, name)
            url = server.url_of(name)
        else:
            shutil.copy(request.getfixturevalue("sqlite_template"), folder / "opencloud.db")
            url = f"sqlite:///{folder}/opencloud.db"
        own = {"DATABASE_URL": url, "USER_DATA_ROOT_PATH": str(folder / "users")}
        if request.param == "s3":
            endpoint = stack.enter_context(aws.moto_server())
            aws.create_bucket(endpoint, "files")
            own |= {"FILESYSTEM": "s3", "S3_BUCKET": "files", "USER_DATA_ROOT_PATH": "users"}
            with pytest.MonkeyPatch.context() as patch:  # clients of AWS read it when they are made
                for name, value in aws.environment(endpoint).items():
                    patch.setenv(name, value)
                running = stack.enter_context(Gateway({**environment, **own}))
        else:
            running = stack.enter_context(Gateway({**environment, **own}))
        yield running


@pytest.fixture
def start_gateway(
    environment: dict[str, str], sqlite_template: Path, tmp_path: Path
) -> Iterator[StartGateway]:
    """Starts a gateway with settings of its own; None as a value leaves one out."""
    with ExitStack() as stack:

        def start(**changes: str | None) -> Gateway:
            folder = tmp_path / fresh("gateway")
            folder.mkdir()
            shutil.copy(sqlite_template, folder / "opencloud.db")
            settings = {
                **environment,
                "DATABASE_URL": f"sqlite:///{folder}/opencloud.db",
                "USER_DATA_ROOT_PATH": str(folder / "users"),
                **changes,
            }
            kept = {name: value for name, value in settings.items() if value is not None}
            return stack.enter_context(Gateway(kept))

        yield start


@pytest.fixture
def new_user(gateway: Gateway, issuer: Issuer) -> Callable[[], Api]:
    """Makes callers that nobody else is."""

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
