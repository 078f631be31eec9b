"""Expensive work on behalf of a request: within its caller's share, and only while it is wanted."""

from aiohttp import web

from gateway.http.budgets import Kind
from gateway.http.disconnects import cancelled_on_disconnect
from gateway.http.keys import CALLER, SHARES
from gateway.http.shares import Slot


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
