"""Databases for the tests: both kinds, migrated and empty, a fresh one for each test."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from common.config.settings import DatabaseSettings
from common.database.engine import Database
from common.database.schema import migrate
from devtools.postgres import (
    NoPostgres,
    OwnServer,
    Server,
    own_server,
    run_apart,
    running_server,
)

_SERVERS = {"postgres", "aws_url", "moto_url", "moto", "postgresql", "s3"}
"""Fixtures and parameters for which a server of PostgreSQL or the stand-in for AWS is started."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make quick` leaves out since it needs a server."""
    for item in items:
        call = getattr(item, "callspec", None)
        values = {value for value in call.params.values() if isinstance(value, str)} if call else ()
        if _SERVERS & {*getattr(item, "fixturenames", ()), *values}:
            item.add_marker("server")


def settings_of(url: str, *, pool_size: int = 10) -> DatabaseSettings:
    """Settings for a database URL as the services' environment has it."""
    driver = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"
    return DatabaseSettings(url=make_url(url).set(drivername=driver), pool_size=pool_size)


async def _migrate(url: str) -> None:
    database = Database(settings_of(url))
    try:
        await migrate(database)
    finally:
        await database.close()


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
    run_apart(_migrate(postgres.url_of(name)))
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    run_apart(_migrate(f"sqlite:///{path}"))
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
    database = Database(settings_of(database_url))
    yield database
    await database.close()


@pytest.fixture
async def server() -> AsyncIterator[OwnServer]:
    """A PostgreSQL that may be stopped."""
    context = own_server()
    server = await asyncio.to_thread(context.__enter__)
    yield server
    await asyncio.to_thread(context.__exit__, None, None, None)
