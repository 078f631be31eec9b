"""Hand-overs that have been set aside: those behind them no longer wait for them.

The version before runs beside this one: it sets nothing aside, and waits for nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column(
        "handovers", sa.Column("set_aside", sa.Boolean, nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    op.drop_column("handovers", "set_aside")
