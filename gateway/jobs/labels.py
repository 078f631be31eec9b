"""Labels of jobs: in requests, as a condition on `jobs`, and as rows."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, bindparam, delete, insert, select

from common.database.tables import job_labels, jobs
from gateway.http.errors import shortened
from gateway.http.fields import Text, TextMap, invalid

Label = tuple[str, str | None]
"""A label's key, and its value; None for any."""

MOST_LABELS: Final = 16
LONGEST_KEY: Final = 63
LONGEST_VALUE: Final = 255
LONGEST_LABEL: Final = LONGEST_KEY + 1 + LONGEST_VALUE
MOST_LABELS_ASKED: Final = 2 * MOST_LABELS
"""Labels that one request may ask for: no job has more, by key and by value."""

LABEL_EXAMPLE: Final = "exp:7"

_KEY: Final = re.compile(f"[A-Za-z0-9._/-]{{1,{LONGEST_KEY}}}")
_ALLOWED: Final = f"a label's key has 1 to {LONGEST_KEY} of A-Z, a-z, 0-9, '.', '_', '-', '/'"


class LabelKey(Text):
    """A label's key."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        return check_key(super()._deserialize(value, attr, data, **kwargs))


class LabelMap(TextMap):
    """The labels of a job."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            name=LabelKey(longest=LONGEST_KEY), most=MOST_LABELS, longest=LONGEST_VALUE, **kwargs
        )


class LabelText(Text):
    """A label as a parameter: `key` or `key:value`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(longest=LONGEST_LABEL, **kwargs)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        check_key(parse_label(text)[0])
        return text


def check_key(key: str) -> str:
    """The key. Raises `ValidationError` for what can be none."""
    if not _KEY.fullmatch(key):
        raise invalid("value_error", f"Value error, {shortened(key)!r} given: {_ALLOWED}")
    return key


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


add_labels: Final = insert(job_labels)
remove_labels: Final = delete(job_labels).where(job_labels.c.job_id == bindparam("of_job"))


def label_rows(job: Any, date: datetime | None, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of the labels of a job (a mapping); `date` is that of its creation."""
    own = {"job_id": job["id"], "user_id": job["user_id"], "date_created": date}
    return [{**own, "key": key, "value": value} for key, value in labels.items()]
