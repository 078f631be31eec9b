"""A job to hand over, and its lane."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.outbox.laned import LanedItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover(LanedItem):
    """A claimed hand-over: `payload` is what the peer gets, under the delivery number `number`."""

    job_id: int
    number: int
    payload: str


Lane = list[Handover]
"""Hand-overs of one user and priority, in order."""


def in_lanes(items: Sequence[Handover]) -> list[Lane]:
    """The items by lane; one without a user is alone in its lane."""
    lanes: dict[object, Lane] = {}
    for item in items:
        key = item.id if item.user_id is None else (item.user_id, item.priority)
        lanes.setdefault(key, []).append(item)
    return [*lanes.values()]
