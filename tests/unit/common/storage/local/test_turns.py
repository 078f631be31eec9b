"""Directories are read one at a time, users in turn, but no call waits long for a slow one."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from common.storage.local.threads import Threads
from common.storage.local.turns import Turns


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    turns = Turns(Threads(8))
    yield turns
    await turns.close()


class Calls:
    """Calls that are under way until they are let go; notes whose began, in order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_end = threading.Event()

    def __call__(self, user: str) -> str:
        self.begun.append(user)
        assert self.may_end.wait(60)
        return user


async def test_quick_calls_run_one_at_a_time(turns: Turns) -> None:
    inside, most = 0, 0

    def call(number: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        sum(range(1000))
        inside -= 1
        return number

    calls = (turns.run("ada", call, number) for number in range(200))
    assert await asyncio.gather(*calls) == list(range(200))
    assert most == 1


async def test_users_take_turns_whatever_one_of_them_asks_for(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.storage.local.turns._LONGEST", 60.0)
    calls = Calls()
    users = [*["ada"] * 5, "bob", "bob", "eve"]
    running = [asyncio.create_task(turns.run(user, calls, user)) for user in users]
    await asyncio.sleep(0)  # each task runs until it waits
    calls.may_end.set()
    assert await asyncio.gather(*running) == users
    assert calls.begun == ["ada", "ada", "bob", "eve", "ada", "bob", "ada", "ada"]


async def test_a_slow_call_delays_no_other_and_an_error_ends_its_turn(turns: Turns) -> None:
    slow = Calls()
    running = asyncio.create_task(turns.run("ada", slow, "ada"))
    beside = [asyncio.create_task(turns.run("ada", int, text)) for text in ("none", "1")]
    with pytest.raises(ValueError, match="none"):
        await beside[0]
    assert await beside[1] == 1
    assert not running.done()
    slow.may_end.set()
    assert await running == "ada"
    assert await turns.run("ada", int, "2") == 2


async def test_a_call_that_nobody_waits_for_gives_its_turn_to_the_next(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.storage.local.turns._LONGEST", 60.0)
    calls = Calls()
    first, second, third = (
        asyncio.create_task(turns.run(user, calls, user)) for user in ("ada", "bob", "eve")
    )
    await asyncio.sleep(0)
    second.cancel()
    first.cancel()  # ends once its call has
    calls.may_end.set()
    assert await third == "eve"
    assert calls.begun == ["ada", "eve"]
    assert await turns.run("ada", calls, "ada") == "ada"


async def test_a_call_that_is_cancelled_as_its_turn_comes_passes_it_on(turns: Turns) -> None:
    async def cancel_next() -> None:
        await turns.run("ada", int, "1")
        second.cancel()  # in the turn of the loop in which it is granted

    first = asyncio.create_task(cancel_next())
    second = asyncio.create_task(turns.run("bob", int, "2"))
    third = asyncio.create_task(turns.run("eve", int, "3"))
    await first
    assert await third == 3
    assert second.cancelled()
