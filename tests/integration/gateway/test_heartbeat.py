"""A gateway records that the endpoint for workers' updates works."""

import asyncio

import pytest

from common.database.engine import Database
from gateway import app


async def test_a_beat_that_fails_is_followed_by_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    beats = 0
    twice = asyncio.Event()

    async def beat(*_: object) -> None:
        nonlocal beats
        beats += 1
        if beats == 2:
            twice.set()
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(app, "beat", beat)
    monkeypatch.setattr(app, "BEAT_EVERY", 0.001)
    task = asyncio.create_task(app._beat_forever(database))
    await asyncio.wait_for(twice.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "unforeseen" in capsys.readouterr().out
