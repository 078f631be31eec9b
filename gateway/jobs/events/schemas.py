"""Requests and answers about events of jobs."""

from typing import Any, Final

from marshmallow import Schema, fields

from common.jobs.lifecycle import Source, Status
from gateway.http.fields import RequestSchema, Several, Text, Whole
from gateway.jobs.labels import LONGEST_LABEL, MOST_LABELS_ASKED

MAX_EVENTS: Final = 10_000
MAX_CURSOR: Final = 2**63 - 1

_SHOWN: Final = ("status", "details", "cancel", "cancelled")

EVENT_EXAMPLE: Final[dict[str, Any]] = {
    "id": 17,
    "job_id": 1,
    "job_name": "train_1",
    "type": "status",
    "status": "running",
    "details": None,
    "source": "worker",
    "date": "2026-01-01T12:00:00.123456",
}


class EventSchema(Schema):
    """A change of a job."""

    id = fields.Integer(metadata={"description": "Grows; a cursor for `after`."})
    job_id = fields.Integer()
    job_name = fields.String(allow_none=True)
    type = fields.String(metadata={"enum": _SHOWN})
    status = fields.String(
        metadata={
            "enum": [status.value for status in Status],
            "description": "The job's status after the event.",
        }
    )
    details = fields.String(allow_none=True)
    source = fields.String(metadata={"enum": [source.value for source in Source]})
    date = fields.String(metadata={"description": "UTC, ISO 8601 without an offset."})


class EventsQuerySchema(RequestSchema):
    """A part of a job's events."""

    after = Whole(
        load_default=0,
        least=0,
        metadata={"description": "The id of the last event that is known.", "example": 0},
    )
    limit = Whole(
        load_default=1_000,
        least=0,
        metadata={"description": f"How many at most; above {MAX_EVENTS} counts as {MAX_EVENTS}."},
    )


class StreamQuerySchema(RequestSchema):
    """Which events to stream."""

    after = Whole(
        least=0,
        metadata={
            "description": "First everything later than this event; without it, from now on. "
            "`Last-Event-ID` takes precedence."
        },
    )
    job = Several(
        Whole(),
        most=1_000,
        metadata={"description": "Only events of these jobs; may be repeated."},
    )
    label = Several(
        Text(longest=LONGEST_LABEL),
        most=MOST_LABELS_ASKED,
        metadata={"description": "Only events of jobs with this label: `key` or `key:value`."},
    )


class LastEventIdSchema(RequestSchema):
    """Where a stream that broke goes on."""

    last_event_id = Whole(
        data_key="last-event-id",
        least=0,
        metadata={"description": "Sent by browsers when they reconnect."},
    )


class WaitSchema(RequestSchema):
    """How long to wait for a change."""

    wait = Whole(
        load_default=0,
        least=0,
        most=60,
        metadata={
            "description": "Seconds to wait for another status than at the request's arrival; a "
            "job that has ended is answered at once."
        },
    )
