"""Users' choices about the mails that the ends of their jobs cause."""

from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ScalarSelect, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import utc_now
from common.database.tables import notification_choices


class Choice(StrEnum):
    """Which mails a user wants; the values go over the wire."""

    ALL = "all"
    """One for each job that ends."""

    ERRORS = "errors"
    """One for each job that ends in `error`."""

    NONE = "none"

    LAST = "last"
    """A digest once none of the user's jobs is under way any more."""

    def wants(self, *, error: bool) -> bool:
        """Whether a job that has ended, in `error` or not, gets a mail of its own."""
        return self is Choice.ALL or (self is Choice.ERRORS and error)


OF_JOBS: Final = (Choice.ALL, Choice.ERRORS, Choice.NONE)
"""What a submission may choose for its job."""


def choice_of_user() -> ScalarSelect[str]:
    """The choice of the user `user_id` (a parameter); NULL: none was made."""
    table = notification_choices.c
    own = table.user_id == bindparam("user_id")
    return select(table.mail).where(own).scalar_subquery()


_read = select(choice_of_user())


async def read_choice(connection: AsyncConnection, user_id: str) -> Choice:
    found = (await connection.execute(_read, {"user_id": user_id})).scalar()
    return Choice(found or Choice.ALL)


async def write_choice(tx: AsyncConnection, user_id: str, choice: Choice) -> None:
    dialect: Any = sqlite if tx.dialect.name == "sqlite" else postgresql
    values = {"mail": choice, "changed_at": utc_now()}
    await tx.execute(
        dialect.insert(notification_choices)
        .values(user_id=user_id, **values)
        .on_conflict_do_update(index_elements=[notification_choices.c.user_id], set_=values)
    )
