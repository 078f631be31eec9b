"""Labels of jobs: as parameters, and as a condition on `jobs`."""

from typing import Final

from sqlalchemy import ColumnElement, select

from common.database.tables import job_labels, jobs

Label = tuple[str, str | None]
"""A label's key, and its value; None for any."""

LABEL_EXAMPLE: Final = "exp:7"


def parse_label(text: str) -> Label:
    """`key` or `key:value`; a key holds no colon."""
    key, colon, value = text.partition(":")
    return key, value if colon else None


def has_label(user_id: str, label: Label) -> ColumnElement[bool]:
    """Whether a job of the user has a label, by the index on the user's labels."""
    key, value = label
    own = [job_labels.c.user_id == user_id, job_labels.c.key == key]
    if value is not None:
        own.append(job_labels.c.value == value)
    return jobs.c.id.in_(select(job_labels.c.job_id).where(*own))
