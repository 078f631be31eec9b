"""Events and deletions as clients read them: JSON, and frames of `text/event-stream`."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from common.jobs.event_pages import Deletion, Event
from gateway.http.responses import iso


@dataclass(frozen=True, slots=True)
class Item:
    """An event, or a deletion, as a frame; `cursor` is its id among those of its kind."""

    cursor: int
    job_id: int
    frame: bytes
    is_deletion: bool = False
    labels: Mapping[str, str] | None = None
    """The job's labels, if a follower of its user wants them."""


def event_json(event: Event) -> dict[str, object]:
    """An event as clients read it."""
    return {
        "id": event.id,
        "job_id": event.job_id,
        "job_name": event.job_name,
        "type": event.type,
        "status": event.status,
        "details": event.details,
        "source": event.source,
        "date": iso(event.date),
    }


def event_item(event: Event, labels: Mapping[int, Mapping[str, str]]) -> Item:
    data = orjson.dumps(event_json(event))
    frame = b"id: %d\nevent: job\ndata: %b\n\n" % (event.id, data)
    return Item(event.id, event.job_id, frame, labels=labels.get(event.job_id))


def deletion_item(deletion: Deletion) -> Item:
    data = orjson.dumps({"job_id": deletion.job_id})
    frame = b"event: deleted\ndata: %b\n\n" % data
    return Item(deletion.id, deletion.job_id, frame, is_deletion=True, labels=deletion.labels)
