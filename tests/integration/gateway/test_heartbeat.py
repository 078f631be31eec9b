"""A gateway vouches for the endpoint that workers report to."""

import asyncio

import pytest

from common.database.engine import Database
from gateway import app


async def test_whatever_a_beat_fails_with_the_next_one_comes(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    beats = 0
    twice = asyncio.Event()

    async def beat(*_: object) -> None:
        nonlocal beats
        beats += 1
        if beats == 2:
            twice.set()
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(app, "beat", beat)
    monkeypatch.setattr(app, "BEAT_EVERY", 0.001)
    task = asyncio.create_task(app._beat_for_ever(database))
    await asyncio.wait_for(twice.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "nobody foresaw this" in capsys.readouterr().out
