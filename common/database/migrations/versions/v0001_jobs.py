"""The existing deployment's table: adopted if it exists, created if not.

On SQLite the table is rebuilt with AUTOINCREMENT, since a plain rowid is reused after the newest
job was deleted. A downgrade keeps the table: the service before this one needs it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_COLUMNS = (
    "id, user_id, user_email, job_name, date_created, date_started, date_finished, status, "
    "paths_out, runtime_details, environment, priority, application, attributes, hardware"
)


def upgrade() -> None:
    connection = op.get_bind()
    inspector = sa.inspect(connection)
    exists = inspector.has_table("jobs")
    if connection.dialect.name == "sqlite":
        _upgrade_sqlite(connection, exists=exists)
        return
    if not exists:
        labels = ("cloud", "local", "any")
        environment = postgresql.ENUM(*labels, name="environmenttypes", create_type=False)
        environment.create(connection, checkfirst=True)
        _create_jobs(environment)
    elif "ix_jobs_id" not in {i["name"] for i in inspector.get_indexes("jobs")}:
        op.create_index("ix_jobs_id", "jobs", ["id"])
    # a table that was restored or copied may have a sequence that lags behind
    op.execute(
        """
        SELECT setval(sequence, newest)
        FROM (SELECT pg_get_serial_sequence('jobs', 'id') AS sequence,
                     (SELECT max(id) FROM jobs) AS newest) AS found
        WHERE CASE WHEN newest IS NULL THEN false ELSE newest >= nextval(sequence) END
        """
    )


def _upgrade_sqlite(connection: sa.Connection, *, exists: bool) -> None:
    if not exists:
        _create_jobs(sa.String(5))
        return
    made_by = connection.execute(
        sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'jobs'")
    ).scalar_one()
    if "AUTOINCREMENT" in made_by.upper():
        return
    op.execute("DROP INDEX IF EXISTS ix_jobs_id")
    op.rename_table("jobs", "jobs_before")
    _create_jobs(sa.String(5))
    op.execute(f"INSERT INTO jobs ({_COLUMNS}) SELECT {_COLUMNS} FROM jobs_before")
    op.drop_table("jobs_before")


def _create_jobs(environment: sa.types.TypeEngine[str]) -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("user_email", sa.String),
        sa.Column("job_name", sa.String),
        sa.Column("date_created", sa.DateTime),
        sa.Column("date_started", sa.DateTime),
        sa.Column("date_finished", sa.DateTime),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("paths_out", sa.JSON, nullable=False),
        sa.Column("runtime_details", sa.Text),
        sa.Column("environment", environment),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("application", sa.JSON, nullable=False),
        sa.Column("attributes", sa.JSON, nullable=False),
        sa.Column("hardware", sa.JSON),
        sa.UniqueConstraint("user_id", "job_name", name="_user_job_name_unique"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_id", "jobs", ["id"])


def downgrade() -> None:
    """Keep the table, which the service before this one needs."""
