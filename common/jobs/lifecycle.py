"""A job's statuses, the legal changes between them, and what each entails. Pure: no I/O.

    queued → pulled → preprocessing → running → postprocessing → finished | error

Any status may follow any other (the peer requeues a job that stalled), except:

- `finished` is final: later reports change nothing;
- after an `error` that a worker reported, only `queued` (a retry) and `finished` change the status,
  since a failing job still reports `postprocessing` while it uploads its logs; details are kept;
- an `error` that no worker reported (reconciliation's "no sign of life", the peer's refusal of a
  copy sent after a doubt) is undone by any report of a worker. One that a worker reported is a
  fact: its date stays and the user gets its mail, even if an undone `error` follows;
- a job that its user cancelled is in `error` for good: later reports change nothing, and a worker
  that reports is to be stopped.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """Statuses as they go over the wire."""

    QUEUED = "queued"
    PULLED = "pulled"
    PREPROCESSING = "preprocessing"
    RUNNING = "running"
    POSTPROCESSING = "postprocessing"
    FINISHED = "finished"
    ERROR = "error"

    @classmethod
    def of_row(cls, text: str) -> "Status":
        """The status in a job's row; that of an adopted row may be unknown and counts as queued."""
        try:
            return cls(text)
        except ValueError:
            return cls.QUEUED

    @property
    def is_final(self) -> bool:
        return self in {Status.FINISHED, Status.ERROR}

    @property
    def shows_worker(self) -> bool:
        """Whether this status, when reported, shows that a worker has the job."""
        return self not in {Status.QUEUED, Status.ERROR}


WITH_WORKER: Final = (
    Status.PULLED,
    Status.PREPROCESSING,
    Status.RUNNING,
    Status.POSTPROCESSING,
)
"""Statuses in which a worker is expected to report every few seconds."""


class Source(StrEnum):
    """The cause of an event in a job's history."""

    WORKER = "worker"
    DISPATCHER = "dispatcher"
    RECONCILER = "reconciler"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Report:
    """A reported status; `details` is None where there are none."""

    status: Status
    details: str | None
    source: Source


@dataclass(frozen=True, slots=True)
class JobState:
    """What is known of a job when a report arrives.

    `last` is its latest event; `has_failed` says whether a worker has ever reported an `error`,
    which an `error` of another source may have followed.
    """

    status: Status
    has_started: bool
    has_ended: bool
    last: Report | None
    has_failed: bool = False
    is_cancelled: bool = False


class Cancellation(StrEnum):
    """What cancelling a job comes to, as it goes over the wire."""

    CANCELLED = "cancelled"
    """It takes effect, or did so before."""

    ENDED = "ended"
    """The job has ended otherwise, and stays as it is."""

    NOT_FOUND = "not_found"
    """The user has no such job."""


@dataclass(frozen=True, slots=True)
class Change:
    """The changes that a report makes; False and None stand for no change.

    `stops_worker`: the worker that reported works on a job that was cancelled.
    """

    status: Status
    starts: bool = False
    ends: bool = False
    reopens: bool = False
    details: str | None = None
    records_event: bool = False
    enters: bool = False
    leaves_error: bool = False
    undoes_error: bool = False
    stops_worker: bool = False


def cancel(status: Status, *, is_cancelled: bool) -> Cancellation:
    """What a user's wish to cancel a job of this status comes to."""
    if is_cancelled or not status.is_final:
        return Cancellation.CANCELLED
    return Cancellation.ENDED


def is_keep_alive(current: Status, report: Report) -> bool:
    """Whether the report changes nothing in any job of this status."""
    if current is Status.FINISHED:
        return True
    return report.status is current and not report.details and current is not Status.ERROR


def decide(job: JobState, report: Report) -> Change:
    """What `report` changes in `job`. Never raises, since a report is a fact."""
    if job.is_cancelled:
        return Change(job.status, stops_worker=report.source is Source.WORKER)
    if job.status is Status.FINISHED:
        return Change(job.status)
    new = report.status if _may_follow(job, report) else job.status
    repeated = job.last is not None and (job.last.status, job.last.details) == (
        report.status,
        report.details,
    )
    enters = new is not job.status
    leaves_error = enters and job.status is Status.ERROR
    undoes_error = leaves_error and not _is_proven(job) and not job.has_failed
    # a repeated `error` must not add a second copy of its log's tail
    details = None if repeated and new is Status.ERROR else report.details
    return Change(
        status=new,
        starts=report.status.shows_worker and not job.has_started,
        ends=new.is_final and not job.has_ended,
        reopens=undoes_error and not new.is_final,
        details=details,
        records_event=enters or not repeated,
        enters=enters,
        leaves_error=leaves_error,
        undoes_error=undoes_error,
    )


def _may_follow(job: JobState, report: Report) -> bool:
    if job.status is not Status.ERROR or not _is_proven(job):
        return True
    return report.status in {Status.QUEUED, Status.FINISHED}


def _is_proven(job: JobState) -> bool:
    """Whether a worker reported the job's last status."""
    return job.last is None or job.last.source not in {Source.RECONCILER, Source.DISPATCHER}
