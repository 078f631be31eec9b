"""The manual's two roles: one owns and migrates, the other one serves and changes rows only."""

import re
from collections.abc import AsyncIterator
from typing import NamedTuple
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.engine import make_url

from common.database.engine import Database
from common.database.schema import current, migrate, revisions
from common.database.tables import handovers, metadata
from devtools.database import database_settings
from devtools.postgres import Server, render
from tests.support.records import add_handover, add_mail
from tests.tools.deploy.places import DOCS

SECTION = (DOCS / "operating.md").read_text().split("**Privileges.**")[1].split("\n**")[0]
CREATION, PRIVILEGES, ADOPTION = re.findall(
    r"^```sql\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL
)
PASSWORD = "password-of-the-tests"


class Deployment(NamedTuple):
    owner: str
    serving: str


def run(server: Server, statements: str, suffix: str) -> None:
    """Run the manual's statements with other names, one by one as psql does."""
    text = re.sub(r"--.*", "", statements)
    text = re.sub(r"\bopencloud(_owner)?\b", rf"opencloud\1_{suffix}", text)
    for statement in filter(str.strip, text.split(";")):
        server.execute(statement)


async def migrate_as(url: str) -> None:
    database = Database(database_settings(url))
    await migrate(database)
    await database.close()


@pytest.fixture(params=["a new database", "one that the serving role owned"])
async def deployment(postgres: Server, request: pytest.FixtureRequest) -> AsyncIterator[Deployment]:
    suffix = uuid4().hex[:8]
    name, owner = f"opencloud_{suffix}", f"opencloud_owner_{suffix}"
    inside = Server(postgres.url_of(name))

    def url_of(role: str) -> str:
        postgres.execute(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
        return render(make_url(inside.url).set(username=role, password=PASSWORD))

    run(postgres, CREATION, suffix)
    try:
        if request.param != "a new database":
            postgres.execute(f"ALTER DATABASE {name} OWNER TO {name}")
            await migrate_as(url_of(name))
        run(inside, PRIVILEGES, suffix)
        if request.param != "a new database":
            run(inside, ADOPTION, suffix)
        await migrate_as(url_of(owner))
        yield Deployment(url_of(owner), url_of(name))
    finally:
        postgres.drop_database(name)
        for role in (name, owner):
            postgres.execute(f"DROP ROLE {role}")


async def test_the_serving_role_does_everything_that_the_services_do(
    deployment: Deployment,
) -> None:
    owner = await asyncpg.connect(deployment.owner)
    await owner.execute("CREATE TABLE of_a_later_migration (id serial)")
    await owner.close()
    database = Database(database_settings(deployment.serving))

    assert await current(database) == revisions()[-1]
    job_id = await add_handover(database)
    await add_mail(database)
    async with database.transaction() as tx:
        due = select(handovers.c.job_id).where(handovers.c.state == "pending")
        claimed = await tx.execute(
            update(handovers)
            .where(handovers.c.job_id.in_(due.with_for_update(skip_locked=True)))
            .values(state="sending")
            .returning(handovers.c.job_id)
        )
        assert claimed.scalars().all() == [job_id]
        await tx.exec_driver_sql("INSERT INTO of_a_later_migration DEFAULT VALUES")
        await tx.exec_driver_sql("NOTIFY opencloud_handovers")
    async with database.transaction() as tx:
        for table in reversed(metadata.sorted_tables):
            column = next(iter(table.columns))
            await tx.execute(update(table).values({column: column}))
            await tx.execute(delete(table))
    await database.close()


@pytest.mark.parametrize("deployment", ["one that the serving role owned"], indirect=True)
async def test_the_serving_role_changes_no_structure(deployment: Deployment) -> None:
    serving = await asyncpg.connect(deployment.serving)
    for statement in (
        "CREATE TABLE planted (id int)",
        "CREATE TEMPORARY TABLE planted (id int)",
        "CREATE SCHEMA planted",
        "ALTER TABLE jobs ADD COLUMN planted int",
        "CREATE INDEX planted ON jobs (id)",
        "TRUNCATE jobs CASCADE",
        "DROP TABLE emails",
        "DROP TYPE environmenttypes",
        "SELECT setval('jobs_id_seq', 1)",
        "CREATE ROLE planted",
        "COPY jobs TO PROGRAM 'true'",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await serving.execute(statement)
    assert not await serving.fetchval(
        "SELECT has_database_privilege('public', current_database(), 'CONNECT')"
    )
    await serving.close()
