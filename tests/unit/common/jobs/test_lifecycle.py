import pytest

from common.jobs.lifecycle import (
    WITH_WORKER,
    Change,
    JobState,
    Report,
    Source,
    Status,
    decide,
    is_keep_alive,
)

ALL = list(Status)


def job(
    status: str, *, started: bool = False, ended: bool = False, last: Report | None = None
) -> JobState:
    return JobState(Status(status), started, ended, last)


def report(status: str, details: str | None = None, source: Source = Source.WORKER) -> Report:
    return Report(Status(status), details, source)


@pytest.mark.parametrize("status", ALL)
@pytest.mark.parametrize("details", [None, "late words"])
def test_nothing_changes_a_finished_job(status: Status, details: str | None) -> None:
    state = job("finished", started=True, ended=True, last=report("finished"))
    change = decide(state, Report(status, details, Source.WORKER))
    assert change == Change(Status.FINISHED)


@pytest.mark.parametrize("before", [*WITH_WORKER, Status.QUEUED])
@pytest.mark.parametrize("after", ALL)
def test_any_status_may_follow_one_that_is_not_final(before: Status, after: Status) -> None:
    change = decide(JobState(before, True, False, None), Report(after, None, Source.WORKER))
    assert change.status is after
    assert change.enters is (before is not after)
    assert change.ends is after.is_final


@pytest.mark.parametrize("after", ALL)
def test_after_a_workers_error_only_a_retry_and_the_end_change_the_status(after: Status) -> None:
    state = job("error", started=True, ended=True, last=report("error"))
    change = decide(state, Report(after, "words", Source.WORKER))
    expected = after if after in {Status.QUEUED, Status.FINISHED} else Status.ERROR
    assert change.status is expected
    assert change.details == "words"


@pytest.mark.parametrize("source", [Source.RECONCILER, Source.DISPATCHER])
@pytest.mark.parametrize("after", [*WITH_WORKER, Status.QUEUED, Status.FINISHED])
def test_an_error_that_no_worker_reported_gives_way_to_any_sign_of_life(
    after: Status, source: Source
) -> None:
    silent = report("error", "no sign of life", source)
    state = job("error", started=True, ended=True, last=silent)
    change = decide(state, Report(after, None, Source.WORKER))
    assert change.status is after
    assert change.undoes_error
    assert change.reopens is (after is not Status.FINISHED)


@pytest.mark.parametrize("last", [report("error"), report("postprocessing", "words"), None])
@pytest.mark.parametrize("after", [Status.QUEUED, Status.FINISHED])
def test_an_error_that_a_worker_reported_is_not_undone(after: Status, last: Report | None) -> None:
    change = decide(job("error", ended=True, last=last), Report(after, None, Source.WORKER))
    assert change.leaves_error
    assert (change.undoes_error, change.reopens, change.ends) == (False, False, False)


def test_an_error_that_follows_a_workers_own_gives_way_without_being_undone() -> None:
    silent = report("error", "no sign of life", Source.RECONCILER)
    state = JobState(Status.ERROR, True, True, silent, has_failed=True)
    change = decide(state, report("running"))
    assert (change.status, change.leaves_error) == (Status.RUNNING, True)
    assert (change.undoes_error, change.reopens) == (False, False)


@pytest.mark.parametrize("status", ALL)
def test_a_job_starts_with_the_first_status_that_shows_a_worker(status: Status) -> None:
    shows = status not in {Status.QUEUED, Status.ERROR}
    assert decide(job("queued"), Report(status, None, Source.WORKER)).starts is shows
    assert not decide(job("queued", started=True), Report(status, None, Source.WORKER)).starts


def test_a_job_ends_once() -> None:
    assert decide(job("running", started=True), report("error")).ends
    ended = job("error", started=True, ended=True, last=report("error"))
    assert not decide(ended, report("finished")).ends


def test_a_repeated_status_without_news_is_a_keep_alive() -> None:
    state = job("running", started=True, last=report("running"))
    assert decide(state, report("running")) == Change(Status.RUNNING)
    assert is_keep_alive(Status.RUNNING, report("running"))
    assert not is_keep_alive(Status.RUNNING, report("running", "epoch 2"))
    assert not is_keep_alive(Status.RUNNING, report("queued"))
    assert not is_keep_alive(Status.ERROR, report("error"))
    assert is_keep_alive(Status.FINISHED, report("running", "late"))


def test_the_last_word_of_a_failed_job_told_twice_adds_no_second_copy() -> None:
    tail = report("error", "the log's tail")
    state = job("error", started=True, ended=True, last=tail)
    change = decide(state, tail)
    assert change.details is None
    assert not change.records_event


def test_a_failing_job_passes_through_its_four_reports() -> None:
    state = job("running", started=True, last=report("running"))
    first = decide(state, report("error"))
    assert (first.status, first.enters, first.ends) == (Status.ERROR, True, True)
    failed = job("error", started=True, ended=True, last=report("error"))
    uploading = decide(failed, report("postprocessing"))
    assert (uploading.status, uploading.enters) == (Status.ERROR, False)
    failed = job("error", started=True, ended=True, last=report("postprocessing"))
    last = decide(failed, report("error", "the log's tail"))
    assert (last.status, last.enters, last.details) == (Status.ERROR, False, "the log's tail")
