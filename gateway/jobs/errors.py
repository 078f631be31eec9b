"""What can go wrong with jobs. None of these knows HTTP."""

from typing import Final

from gateway.http.limits import LimitExceeded

_JOBS_END_AFTER: Final = 60.0
"""Seconds after which a refused submission may be tried again: jobs take minutes to hours."""


class JobNotFound(Exception):
    """The user has no such job."""


class SubmissionRefused(Exception):
    """The job cannot be started; the message is for the user."""


class NameTaken(SubmissionRefused):
    """The user has a job of this name."""


class BatchNameTaken(NameTaken):
    """A name of a batch is there twice, or the user has a job of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Job name must be unique: '{name}'")


class ResultsInTheWay(SubmissionRefused):
    """Files lie where the job's results would be written, and its deletion would remove them."""


class UnusableInput(SubmissionRefused):
    """An input does not exist, cannot be fetched by workers, or clashes with another one."""


class TooManyInputs(SubmissionRefused):
    """The job has more input files than the service allows."""


class TooManyUnfinished(LimitExceeded):
    """The user has as many jobs under way as are allowed."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} unfinished jobs", _JOBS_END_AFTER)


class JobEnded(Exception):
    """The job has ended, and not by a cancellation."""


class KeyUsed(Exception):
    """The idempotency key belongs to another request."""


class KeyBusy(Exception):
    """The first request with this idempotency key has not been answered yet."""
