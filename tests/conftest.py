"""Databases of both kinds, migrated and empty, a fresh one for each test; the user pool; AWS."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from common.database.engine import Database
from devtools.database import database_settings, migrate_database
from devtools.postgres import NoPostgres, OwnServer, Server, own_server, run_apart, running_server
from devtools.user_pool import Issuer
from tests.support.key_server import KeyServer

_SERVERS = {"postgres", "server", "aws_url", "moto_url", "moto", "postgresql", "s3"}
"""Fixtures and parameters for which a server of PostgreSQL or the stand-in for AWS is started."""

# The same examples in every run: a failure comes again, and is that of a change. New examples are
# sought with `--hypothesis-profile=exploring`. On a slow machine they may take any time.
_slowly = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("repeated", derandomize=True, database=None, **_slowly)
hypothesis.settings.register_profile("exploring", print_blob=True, **_slowly)
hypothesis.settings.load_profile("repeated")

# as in the services: rich, where it is installed, takes seconds to draw a traceback
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a server; `make quick` leaves them out."""
    for item in items:
        call = getattr(item, "callspec", None)
        values = {value for value in call.params.values() if isinstance(value, str)} if call else ()
        if _SERVERS & {*getattr(item, "fixturenames", ()), *values}:
            item.add_marker("server")


@pytest.fixture(scope="session", autouse=True)
def _patient_writers() -> Iterator[None]:
    """On a slow machine a hundred writers of SQLite take longer than the services wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.database.engine._LOCK_TIMEOUT", 60.0)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for the whole run."""
    try:
        with running_server() as server:
            yield server
    except NoPostgres as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def postgres_template(postgres: Server) -> Iterator[str]:
    """Name of a migrated, empty database to copy."""
    name = postgres.create_database()
    run_apart(migrate_database(postgres.url_of(name)))
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    run_apart(migrate_database(f"sqlite:///{path}"))
    return path


@pytest.fixture
def postgresql_url(postgres: Server, postgres_template: str) -> Iterator[str]:
    """URL of a migrated, empty PostgreSQL database."""
    name = postgres.create_database(template=postgres_template)
    yield postgres.url_of(name)
    postgres.drop_database(name)


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """URL of a migrated, empty SQLite database."""
    path = tmp_path / "opencloud.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a migrated, empty database, once of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated, empty database, once of each kind."""
    database = Database(database_settings(database_url))
    yield database
    await database.close()


@pytest.fixture
def server() -> Iterator[OwnServer]:
    """A PostgreSQL that may be stopped."""
    with own_server() as server:
        yield server


@pytest.fixture
def server_url(server: OwnServer) -> str:
    """URL of a migrated, empty database of `server`."""
    run_apart(migrate_database(server.url))
    return server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database without tables, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    postgres: Server = request.getfixturevalue("postgres")
    name = postgres.create_database()
    yield postgres.url_of(name)
    postgres.drop_database(name)


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Database]:
    """A database without tables, once of each kind."""
    database = Database(database_settings(empty_url))
    yield database
    await database.close()


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    """The user pool that every service trusts."""
    return Issuer()


@pytest.fixture(scope="session")
def key_server(issuer: Issuer) -> Iterator[KeyServer]:
    """The key server of `issuer`."""
    with KeyServer(issuer) as server:
        yield server


@pytest.fixture
def pool(issuer: Issuer) -> Iterator[KeyServer]:
    """A key server that no other test asks."""
    with KeyServer(issuer) as server:
        yield server


@pytest.fixture(scope="session")
def aws_url() -> Iterator[str]:
    """Address of a stand-in for AWS."""
    from deploy.sandbox.aws import moto_server  # which imports boto3: half a second

    with moto_server() as url:
        yield url
