"""The turns in which hand-overs go out: fair between users, with a head start by priority.

A turn is a time (seconds since the epoch, by the database's clock), and hand-overs go out by turn.
A job's turn is the time of its submission, except that

- each further job of a user that waits with the same priority has a turn `STEP` seconds after the
  one before: a thousand jobs at once take turns as if they had come one a second, so that the jobs
  of others go out between them, and those of one user and priority in order of submission;
- each level of priority is a head start of `HEAD_START` seconds: no stream of urgent jobs can keep
  others back for longer (ageing).

Turns only order what waits. While there is room for all, nothing is delayed by them. Counted are
the hand-overs that have not been settled, so that nobody pays for what has long gone out. Jobs that
one user submits at the same moment through several gateways may get the same turn; ids decide.
"""

from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, String, bindparam, func, select

from common.database.engine import epoch_now
from common.database.tables import handovers

STEP: Final = 1.0
HEAD_START: Final = 60.0


def next_turn(*, is_sqlite: bool) -> ColumnElement[Any]:
    """The turn of a new hand-over, by the parameters `of_user` and `of_priority`."""
    of_user = bindparam("of_user", type_=String)
    of_priority = bindparam("of_priority", type_=Integer)
    last = (
        select(func.max(handovers.c.turn))
        .where(
            handovers.c.user_id == of_user,
            handovers.c.priority == of_priority,
            handovers.c.settled_at.is_(None),
        )
        .scalar_subquery()
    )
    later_of = func.max if is_sqlite else func.greatest
    return later_of(epoch_now() - of_priority * HEAD_START, func.coalesce(last + STEP, 0.0))
