"""Checks run one after another, each within its time, whatever the others do."""

import asyncio

import pytest

from common.runtime.checks import Check, CheckFailed, run_checks


async def fine() -> str:
    return "found"


async def wrong() -> str:
    raise CheckFailed("what is wrong")


async def broken() -> str:
    raise ZeroDivisionError("by zero")


async def test_every_check_is_shown_and_the_worst_counts() -> None:
    shown: list[tuple[str, str, str]] = []
    checks = [Check("one", fine), Check("two", wrong), Check("three", broken), Check("four", fine)]
    assert await run_checks(checks, lambda *line: shown.append(line)) is False
    assert shown == [
        ("ok", "one", "found"),
        ("FAIL", "two", "what is wrong"),
        ("FAIL", "three", "ZeroDivisionError: by zero"),
        ("ok", "four", "found"),
    ]
    assert await run_checks([Check("one", fine)], lambda *_: None) is True


async def test_a_check_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    hanging = asyncio.Event()

    async def hangs() -> str:
        await hanging.wait()
        return "late"

    checks = [Check("one", hangs), Check("two", fine)]
    await run_checks(checks, lambda status, name, _: shown.append((status, name)), timeout=0.01)
    assert (shown, ended) == ([("FAIL", "one"), ("ok", "two")], [1])
