"""Mails that are to be sent alone are marked by a column, no longer by their last error.

The version before runs beside this one: it leaves the column at its default, and the sentence is
still written as the last error.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_SENTENCE = "the batch was refused as a whole: to be sent alone"


def upgrade() -> None:
    op.add_column(
        "emails", sa.Column("alone", sa.Boolean, nullable=False, server_default=sa.false())
    )
    emails = sa.table("emails", sa.column("alone"), sa.column("last_error"), sa.column("state"))
    op.execute(
        sa.update(emails)
        .where(emails.c.last_error == _SENTENCE, emails.c.state == "pending")
        .values(alone=sa.true())
    )


def downgrade() -> None:
    op.drop_column("emails", "alone")
