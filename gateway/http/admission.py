"""Expensive work on behalf of a request: within its caller's share, and only while it is wanted."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

from common.runtime.computation import compute_in_thread
from gateway.http.budgets import Kind
from gateway.http.disconnects import cancelled_on_disconnect
from gateway.http.keys import CALLER, SHARES
from gateway.http.limits import INTERNAL_CALLER
from gateway.http.shares import Slot

T = TypeVar("T")


class Work:
    """`async with Work(request, kind) as slot:` holds a slot of the caller's share.

    Entering raises as `Slot` does; the block is cancelled if the client leaves.
    """

    __slots__ = ("_slot", "_while_wanted")

    def __init__(self, request: web.Request, kind: Kind) -> None:
        self._while_wanted = cancelled_on_disconnect(request)
        self._slot = request.app[SHARES].slot(kind, request[CALLER])

    async def __aenter__(self) -> Slot:
        self._while_wanted.__enter__()
        try:
            await self._slot.acquire()
        except BaseException:
            self._while_wanted.__exit__()
            raise
        return self._slot

    async def __aexit__(self, *_: object) -> None:
        self._while_wanted.__exit__()
        self._slot.release()


async def acquire(request: web.Request, kind: Kind) -> Slot:
    """A slot for work that goes on when its client leaves; `Slot.release` has to follow."""
    slot = request.app[SHARES].slot(kind, request[CALLER])
    with cancelled_on_disconnect(request):
        await slot.acquire()
    return slot


async def compute(request: web.Request, call: Callable[[], T]) -> T:
    """Call in a thread what takes long, users by turns.

    Raises what `call` does, and as `acquire`. A call that nobody waits for any more goes on, with
    its slot.
    """
    if request[CALLER] is INTERNAL_CALLER:
        return await compute_in_thread(call)
    slot = await acquire(request, "computation")

    async def run() -> T:
        try:
            return await compute_in_thread(call)
        finally:
            slot.release()

    return await asyncio.shield(run())
