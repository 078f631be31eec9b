"""How much of each kind of expensive work runs at a time, in all and of one caller."""

from dataclasses import dataclass
from typing import Final, Literal

from gateway.settings import Limits

Kind = Literal[
    "listing",
    "search",
    "zip",
    "transfer",
    "unpacking",
    "submission",
    "large_body",
    "computation",
    "digest",
    "status_update",
    "event_stream",
    "log_tail",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of one kind of work; times in seconds.

    A caller uses at most `per_caller` of all `slots`, and has begun at most `begun_per_caller`
    pieces of work (by default as many), those included whose slots others use. At most `waiting` of
    its requests wait, each for at most `longest_wait`. A lent slot goes to the next in turn once
    its client has stood still for `lend_after`.
    """

    slots: int
    per_caller: int
    waiting: int
    longest_wait: float
    lend_after: float = 0.25
    begun_per_caller: int = 0


LISTING: Final = Budget(slots=4, per_caller=2, waiting=64, longest_wait=30.0)
"""A listing of many files is work of one thread: more than a few at once only delay each other."""

SEARCH: Final = Budget(slots=8, per_caller=2, waiting=64, longest_wait=30.0)
"""Looking for jobs by filters, or counting them, may read all of a user's."""

SUBMISSION: Final = Budget(slots=16, per_caller=8, waiting=1_024, longest_wait=30.0)
"""The look-up of a submission's inputs, not its insertion: that shares transactions with others."""

LARGE_BODY: Final = Budget(slots=16, per_caller=8, waiting=64, longest_wait=30.0)
"""Bodies of which more than 64 KiB have arrived, up to the end of their requests."""

COMPUTATION: Final = Budget(slots=2, per_caller=1, waiting=64, longest_wait=30.0)
"""Python code in threads, such as the check of a large body: the more of it at a time, the longer
the event loop waits for the interpreter."""

DIGEST: Final = Budget(slots=2, per_caller=1, waiting=64, longest_wait=30.0)
"""A stretch of a file whose digest is computed, some 30 ms of a thread: so the longest file delays
others as little as a short one."""

STATUS_UPDATE: Final = Budget(slots=64, per_caller=64, waiting=1_024, longest_wait=30.0)
"""Large bodies of the worker-facing API, which users' bodies cannot delay."""

EVENT_STREAM: Final = Budget(slots=5_000, per_caller=10, waiting=0, longest_wait=1.0)
"""Open streams of events, which wait most of the time."""


UNPACKING: Final = Budget(slots=8, per_caller=4, waiting=64, longest_wait=30.0)
"""Archives that are unpacked while they arrive: each keeps the names of its members in memory."""

LOG_TAIL: Final = Budget(slots=16, per_caller=4, waiting=64, longest_wait=30.0, begun_per_caller=16)
"""Ends of jobs' logs, which people ask for again and again: mostly a few small reads."""


def budgets(limits: Limits) -> dict[Kind, Budget]:
    """The budgets of a gateway; one caller uses half of the transfers and of the zips."""
    transfers, zips = limits.transfers, limits.zips
    return {
        "listing": LISTING,
        "search": SEARCH,
        "submission": SUBMISSION,
        "large_body": LARGE_BODY,
        "computation": COMPUTATION,
        "digest": DIGEST,
        "status_update": STATUS_UPDATE,
        "event_stream": EVENT_STREAM,
        "log_tail": LOG_TAIL,
        "unpacking": UNPACKING,
        "transfer": Budget(
            slots=transfers,
            per_caller=max(1, transfers // 2),
            begun_per_caller=max(1, 4 * transfers),
            waiting=1_024,
            longest_wait=30.0,
        ),
        "zip": Budget(
            slots=zips,
            per_caller=max(1, zips // 2),
            begun_per_caller=max(1, 2 * zips),
            waiting=64,
            longest_wait=30.0,
        ),
    }
