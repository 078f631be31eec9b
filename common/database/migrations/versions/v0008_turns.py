"""The order in which hand-overs go out: by a turn, fair between users, instead of priority and age.

The version before runs beside this one: it leaves `turn` empty, and such rows go first, by priority
and age. It claims without the index, by sorting what is due.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("handovers", sa.Column("user_id", sa.String))
    op.add_column("handovers", sa.Column("turn", sa.Float))
    first = " NULLS FIRST" if op.get_bind().dialect.name == "postgresql" else ""
    _replace_pending(f"turn{first}, priority DESC, id, due_at")
    op.execute(
        "CREATE INDEX ix_handovers_turns ON handovers (user_id, priority, turn)"
        " WHERE settled_at IS NULL"
    )


def downgrade() -> None:
    op.drop_index("ix_handovers_turns", "handovers")
    _replace_pending("priority DESC, id, due_at")
    op.drop_column("handovers", "turn")
    op.drop_column("handovers", "user_id")


def _replace_pending(columns: str) -> None:
    op.drop_index("ix_handovers_pending", "handovers")
    op.execute(
        f"CREATE INDEX ix_handovers_pending ON handovers ({columns}) WHERE state = 'pending'"
    )
