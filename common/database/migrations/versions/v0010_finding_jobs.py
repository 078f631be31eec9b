"""Indexes to find jobs by: for each order, for each filter, and for labels in order of their jobs.

A label repeats the date of its job, which never changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_FACET = {
    "postgresql": "(CASE environment WHEN 'cloud' THEN 'c' WHEN 'local' THEN 'l' ELSE '-' END"
    " || status || ' ' || left(coalesce(application #>> '{}', ''), 600))",
    "sqlite": "(CASE environment WHEN 'cloud' THEN 'c' WHEN 'local' THEN 'l' ELSE '-' END"
    " || status || ' ' || substr(coalesce(application, ''), 1, 600))",
}
_JOB_INDEXES = ("ix_jobs_user_finished", "ix_jobs_user_status", "ix_jobs_facet")
_LABEL_INDEXES = {
    "ix_job_labels_key": "user_id, key",
    "ix_job_labels_value": "user_id, key, value",
}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    # SQLite: the default of DESC, not to be written
    last = " NULLS LAST" if dialect == "postgresql" else ""
    op.execute(
        f"CREATE INDEX ix_jobs_user_finished ON jobs (user_id, date_finished DESC{last}, id DESC)"
    )
    op.execute("CREATE INDEX ix_jobs_user_status ON jobs (user_id, status, id)")
    op.execute(
        "CREATE INDEX ix_jobs_facet"
        f" ON jobs (user_id, {_FACET[dialect]}, date_created DESC{last}, id DESC)"
    )
    if dialect == "postgresql":  # in SQLite, the unique index has this order
        op.execute('CREATE INDEX ix_jobs_user_name ON jobs (user_id, job_name COLLATE "C", id)')
    op.add_column("job_labels", sa.Column("date_created", sa.DateTime))
    op.execute(
        "UPDATE job_labels"
        " SET date_created = (SELECT date_created FROM jobs WHERE jobs.id = job_labels.job_id)"
    )
    op.drop_index("ix_job_labels_user", "job_labels")
    for name, columns in _LABEL_INDEXES.items():
        op.execute(
            f"CREATE INDEX {name} ON job_labels ({columns}, date_created DESC{last}, job_id DESC)"
        )


def downgrade() -> None:
    for name in _LABEL_INDEXES:
        op.drop_index(name, "job_labels")
    op.create_index("ix_job_labels_user", "job_labels", ["user_id", "key", "value", "job_id"])
    op.drop_column("job_labels", "date_created")
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_jobs_user_name", "jobs")
    for name in _JOB_INDEXES:
        op.drop_index(name, "jobs")
