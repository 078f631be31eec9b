"""Notifiers learn of a submission's messages at once, not by their poll."""

import pytest

from common.database.engine import Database
from common.database.notify import WEBHOOKS, ChannelNotifier
from gateway.jobs.insertion import JobInsertion
from tests.support.records import submission
from tests.support.webhooks import add_webhook


class Recorder(ChannelNotifier):
    """Keeps what is announced."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.channels: list[str] = []

    def notify(self, channel: str, line: str = "") -> None:
        self.channels.append(channel)


@pytest.mark.parametrize("events", [["status"], ["finished"], None])
async def test_a_submission_is_announced_to_those_who_deliver_it(
    database: Database, events: list[str] | None
) -> None:
    if events is not None:
        await add_webhook(database, "https://example.org/", events=events)
    recorder = Recorder(database)
    insertion = JobInsertion(database, recorder)
    await insertion.one(submission("ada"))
    await insertion.batch("ada", [submission("ada"), submission("ada")], None)
    assert recorder.channels == ([WEBHOOKS] * 2 if events == ["status"] else [])
