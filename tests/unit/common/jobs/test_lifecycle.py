"""Which changes a report makes, for each state of a job."""

import pytest

from common.jobs.lifecycle import (
    WITH_WORKER,
    Cancellation,
    Change,
    JobState,
    Report,
    Source,
    Status,
    cancel,
    decide,
    is_keep_alive,
)

ALL = list(Status)


def report(status: str, details: str | None = None, source: Source = Source.WORKER) -> Report:
    return Report(Status(status), details, source)


def job(status: str, last: Report | None = None, *, has_failed: bool = False) -> JobState:
    """A job that has reached this status, by the report `last` if one is named."""
    status = Status(status)
    return JobState(status, status is not Status.QUEUED, status.is_final, last, has_failed)


LOST = report("error", "no sign of life", Source.RECONCILER)
TAIL = report("error", "the log's tail")


@pytest.mark.parametrize("before", [*WITH_WORKER, Status.QUEUED])
@pytest.mark.parametrize("after", ALL)
def test_any_status_may_follow_one_that_is_not_final(before: Status, after: Status) -> None:
    change = decide(job(before), report(after))
    assert change.status is after
    assert change.enters is (before is not after)
    assert change.ends is after.is_final


@pytest.mark.parametrize("after", ALL)
def test_after_a_workers_error_only_a_retry_and_the_end_change_the_status(after: Status) -> None:
    change = decide(job("error", report("error")), report(after, "words"))
    expected = after if after in {Status.QUEUED, Status.FINISHED} else Status.ERROR
    assert change.status is expected
    assert change.details == "words"
    assert not change.ends


@pytest.mark.parametrize("source", [Source.RECONCILER, Source.DISPATCHER])
@pytest.mark.parametrize("after", [*WITH_WORKER, Status.QUEUED, Status.FINISHED])
def test_an_error_that_no_worker_reported_is_undone_by_any_sign_of_life(
    after: Status, source: Source
) -> None:
    change = decide(job("error", report("error", "no sign of life", source)), report(after))
    assert change.status is after
    assert change.undoes_error
    assert change.reopens is (after is not Status.FINISHED)


@pytest.mark.parametrize("last", [report("error"), report("postprocessing", "words"), None])
@pytest.mark.parametrize("after", [Status.QUEUED, Status.FINISHED])
def test_an_error_that_a_worker_reported_is_not_undone(after: Status, last: Report | None) -> None:
    change = decide(job("error", last), report(after))
    assert change.leaves_error
    assert (change.undoes_error, change.reopens, change.ends) == (False, False, False)


def test_an_error_that_follows_a_workers_own_gives_way_without_being_undone() -> None:
    change = decide(job("error", LOST, has_failed=True), report("running"))
    assert (change.status, change.leaves_error) == (Status.RUNNING, True)
    assert (change.undoes_error, change.reopens) == (False, False)


@pytest.mark.parametrize("status", ALL)
def test_a_job_starts_with_the_first_status_that_shows_a_worker(status: Status) -> None:
    shows = status not in {Status.QUEUED, Status.ERROR}
    assert decide(job("queued"), report(status)).starts is shows
    assert not decide(job("pulled"), report(status)).starts


@pytest.mark.parametrize("details", [None, "late words"])
@pytest.mark.parametrize("status", ALL)
def test_nothing_changes_a_finished_job(status: Status, details: str | None) -> None:
    assert decide(job("finished", report("finished")), report(status, details)) == Change(
        Status.FINISHED
    )
    assert is_keep_alive(Status.FINISHED, report(status, details))


def test_a_repeated_status_without_news_is_a_keep_alive() -> None:
    assert decide(job("running", report("running")), report("running")) == Change(Status.RUNNING)
    assert is_keep_alive(Status.RUNNING, report("running"))
    assert not is_keep_alive(Status.RUNNING, report("running", "epoch 2"))
    assert not is_keep_alive(Status.RUNNING, report("queued"))
    assert not is_keep_alive(Status.ERROR, report("error"))


def test_a_repeated_error_adds_no_second_copy_of_its_log() -> None:
    change = decide(job("error", TAIL), TAIL)
    assert (change.details, change.records_event) == (None, False)
    assert decide(job("error", report("postprocessing")), TAIL).details == TAIL.details


@pytest.mark.parametrize("status", ALL)
def test_a_job_that_has_not_ended_can_be_cancelled_and_one_that_has_cannot(status: Status) -> None:
    expected = Cancellation.ENDED if status.is_final else Cancellation.CANCELLED
    assert cancel(status, is_cancelled=False) is expected
    assert cancel(status, is_cancelled=True) is Cancellation.CANCELLED


@pytest.mark.parametrize("details", [None, "words"])
@pytest.mark.parametrize("source", list(Source))
@pytest.mark.parametrize("after", ALL)
def test_nothing_changes_a_cancelled_job_and_its_worker_is_stopped(
    after: Status, source: Source, details: str | None
) -> None:
    state = JobState(Status.ERROR, True, True, last=None, is_cancelled=True)
    stopped = source is Source.WORKER
    assert decide(state, Report(after, details, source)) == Change(
        Status.ERROR, stops_worker=stopped
    )
