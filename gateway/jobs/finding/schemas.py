"""Requests and answers about finding jobs, and about what is shown of them on request."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from marshmallow import ValidationError, fields

from common.database.tables import MAX_JOB_ID
from common.jobs.lifecycle import Status
from gateway.http.errors import shortened
from gateway.http.fields import (
    AnyText,
    Choice,
    Flag,
    Message,
    RequestSchema,
    Several,
    Text,
    Whole,
    invalid,
)
from gateway.http.responses import AnswerSchema
from gateway.jobs.events.schemas import WaitSchema
from gateway.jobs.finding.search import NO_ENVIRONMENT, SORTS, Search
from gateway.jobs.labels import LABEL_EXAMPLE, MOST_LABELS_ASKED, LabelMap, LabelText, parse_label
from gateway.jobs.schemas import JOB_EXAMPLE, JobSchema, PageSchema

HANDOVER_STATES: Final = ("waiting", "sent", "taken", "refused", "dropped")

DETAILED_EXAMPLE: Final = {
    **JOB_EXAMPLE,
    "labels": {"exp": "7"},
    "batch_id": None,
    "repeated_from": None,
    "cancelled": None,
    "last_seen_at": "2026-01-01T12:00:30.123456",
    "handover": {"state": "taken", "attempts": 1},
}

_LONGEST_PATTERN: Final = 512
_OFFSET_BEHIND_BLANK: Final = re.compile(r"(.+[T ].+) (\d\d(?::?\d\d(?::?\d\d)?)?)", re.ASCII)
_LONGEST_MOMENT: Final = 64
"""Characters: more than any date-time has."""

_ISO: Final = (
    "ISO 8601 is allowed, such as 2026-01-01, 2026-01-01T12:00:00 (UTC) or"
    " 2026-01-01T12:00:00+01:00"
)


class Moment(AnyText):
    """A date-time of ISO 8601, as UTC without an offset; a date is its first moment.

    In a query string a `+` stands for a blank, so that an unescaped offset begins with one.
    """

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        short = text[:_LONGEST_MOMENT].upper()  # the expression takes seconds for a long text
        try:
            found = datetime.fromisoformat(_OFFSET_BEHIND_BLANK.sub(r"\1+\2", short))
            return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
        except (ValueError, OverflowError):
            sentence = f"Value error, {shortened(text)!r} given: {_ISO}"
            raise invalid("value_error", sentence) from None


def _moment(meaning: str) -> Moment:
    return Moment(
        metadata={"format": "date-time", "description": meaning, "example": "2026-01-01T12:00:00Z"}
    )


class FindSchema(PageSchema):
    """Which jobs, in which order, and how much of them. An empty filter is none."""

    status = Several(
        Choice([status.value for status in Status]),
        most=64,
        separator=",",
        metadata={"description": "Any of these; repeated or with commas.", "example": ["queued"]},
    )
    application = Text(metadata={"description": "The application that runs.", "example": "decode"})
    version = Text(metadata={"description": "The version that runs.", "example": "v0_10_1"})
    entrypoint = Text(metadata={"description": "The entrypoint that runs.", "example": "train"})
    environment = Choice(
        ["cloud", "local", NO_ENVIRONMENT],
        metadata={"description": "`null`: jobs that run anywhere."},
    )
    name = Text(
        longest=_LONGEST_PATTERN,
        metadata={
            "description": "The job's name; case counts. `*` stands for anything. Costs most where "
            "it begins with one.",
            "example": "train_*",
        },
    )
    label = Several(
        LabelText(),
        most=MOST_LABELS_ASKED,
        metadata={
            "description": "`key` or `key:value`; repeated: all of them.",
            "example": [LABEL_EXAMPLE],
        },
    )
    batch_id = Whole(metadata={"description": "The batch that the job was submitted in."})
    created_after = _moment("Created then or later; without an offset: UTC.")
    created_before = _moment("Created earlier.")
    finished_after = _moment("Finished (or ended in `error`) then or later.")
    finished_before = _moment("Finished earlier.")
    sort = Choice(
        [direction + key for key in SORTS for direction in ("", "-")],
        load_default="-date_created",
        metadata={
            "description": "`-`: descending. Statuses and names by their letters; jobs without the "
            "date or name last; ties by id."
        },
    )
    cursor = AnyText(
        metadata={"description": "From the `Link` of the page before; with the same filters."}
    )
    count = Flag(
        load_default=False,
        metadata={"description": "Count the jobs of all pages, in `X-Total-Count`."},
    )
    details = Flag(load_default=False, metadata={"description": "Show more of each job."})

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Raises `ValidationError`, also for a cursor together with an offset."""
        found = super().load(_without_empty(data), **kwargs)
        if "cursor" in found and found["offset"]:
            sentence = f"Value error, {found['offset']} given with a cursor, 0 allowed"
            raise ValidationError({"offset": [Message(sentence, "value_error")]})
        return found


_FILTERS: Final = frozenset(FindSchema().fields) - {"offset", "limit", "count", "details"}


def _without_empty(data: Mapping[str, Any]) -> dict[str, Any]:
    """Without the empty fields of a form of filters."""
    kept = {}
    for name, value in data.items():
        if name in _FILTERS:
            value = [item for item in value if item] if isinstance(value, list) else value
            if not value:
                continue
        kept[name] = value
    return kept


def search_of(query: Mapping[str, Any]) -> Search:
    """The search that a valid query string means."""
    labels = {parse_label(text) for text in query["label"]}
    return Search(
        statuses=tuple(sorted(set(query["status"]))),
        application=query.get("application"),
        version=query.get("version"),
        entrypoint=query.get("entrypoint"),
        environment=query.get("environment"),
        name=query.get("name"),
        labels=tuple(
            sorted(labels, key=lambda label: (label[0], label[1] or "", label[1] is None))
        ),
        batch_id=_batch_of(query.get("batch_id")),
        created=(query.get("created_after"), query.get("created_before")),
        finished=(query.get("finished_after"), query.get("finished_before")),
        sort=query["sort"].removeprefix("-"),
        descending=query["sort"].startswith("-"),
    )


def _batch_of(number: int | None) -> int | None:
    """The batch's id; 0, which none has, for a number that neither column nor cursor can hold."""
    return number if number is None or 0 < number <= MAX_JOB_ID else 0


class DescribeSchema(WaitSchema):
    """How much of a job, and when."""

    details = Flag(load_default=False, metadata={"description": "Show more of the job."})


class LabelsSchema(RequestSchema):
    """New labels, in place of all that the job has."""

    labels = LabelMap(required=True, metadata={"example": {"exp": "7"}})


class CancelledSchema(AnswerSchema):
    """The cancellation of a job."""

    by = fields.String(metadata={"description": "E-mail address, or user id without one."})
    reason = fields.String(allow_none=True)
    date = fields.String()
    confirmed = fields.String(
        allow_none=True, metadata={"description": "When its worker was told to stop."}
    )


class HandoverSchema(AnswerSchema):
    """How the job reached the worker-facing API."""

    state = fields.String(metadata={"enum": HANDOVER_STATES})
    attempts = fields.Integer()


_SHOWN: Final = "Only with `details`."


class DetailedJobSchema(JobSchema):
    """A job, on request with details."""

    labels = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata={"optional": True, "description": _SHOWN},
    )
    batch_id = fields.Integer(allow_none=True, metadata={"optional": True, "description": _SHOWN})
    repeated_from = fields.Integer(
        allow_none=True, metadata={"optional": True, "description": _SHOWN}
    )
    cancelled = fields.Nested(CancelledSchema, allow_none=True, metadata={"optional": True})
    last_seen_at = fields.String(
        allow_none=True,
        metadata={"optional": True, "description": "A worker's last report. " + _SHOWN},
    )
    handover = fields.Nested(HandoverSchema, metadata={"optional": True})
