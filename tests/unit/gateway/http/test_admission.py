"""Work in threads takes turns, and keeps its slot until its thread has ended."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.http.admission import compute
from gateway.http.budgets import COMPUTATION
from gateway.http.disconnects import CancelsUnwanted
from gateway.http.keys import CALLER, SHARES
from gateway.http.limits import INTERNAL_CALLER, Caller
from gateway.http.shares import Shares


class Request(dict[Any, Any]):
    """What `compute` needs of a request."""

    transport = object()

    def __init__(self, shares: Shares, caller: Caller) -> None:
        super().__init__({CALLER: caller})
        self.app = {SHARES: shares}
        self.protocol = CancelsUnwanted()


@pytest.fixture
def stage() -> SimpleNamespace:
    """Calls that end when they may, and their callers in the order in which they began."""
    shares, may_end, began = Shares({"computation": COMPUTATION}), threading.Event(), []

    def begin(caller: Caller) -> "asyncio.Task[None]":
        def call() -> None:
            began.append(caller)
            may_end.wait(20)

        request: Any = Request(shares, caller)
        return asyncio.create_task(compute(request, call))

    return SimpleNamespace(shares=shares, may_end=may_end, began=began, begin=begin)


async def until_begun(stage: SimpleNamespace, count: int) -> None:
    async with asyncio.timeout(10):
        while len(stage.began) < count:
            await asyncio.sleep(0.005)


ADA, BOB = Caller("user:ada"), Caller("user:bob")


async def test_a_user_computes_one_thing_at_a_time_beside_others_and_workers(
    stage: SimpleNamespace,
) -> None:
    tasks = [stage.begin(caller) for caller in (ADA, ADA, ADA, BOB, INTERNAL_CALLER)]
    await until_begun(stage, 3)
    assert sorted(stage.began) == sorted([ADA, BOB, INTERNAL_CALLER])
    assert stage.shares.usage()["computation"].waiting == 2
    stage.may_end.set()
    await asyncio.gather(*tasks)
    assert stage.began.count(ADA) == 3


async def test_what_nobody_waits_for_any_more_keeps_its_slot_to_its_end(
    stage: SimpleNamespace,
) -> None:
    first = stage.begin(ADA)
    await until_begun(stage, 1)
    first.cancel()
    await asyncio.wait([first])
    second = stage.begin(ADA)
    await asyncio.sleep(0)
    assert stage.shares.usage()["computation"].in_use == 1
    assert stage.shares.usage()["computation"].waiting == 1
    stage.may_end.set()
    await second
    assert stage.began == [ADA, ADA]
