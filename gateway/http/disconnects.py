"""Cancel work whose client has left; aiohttp itself lets every request go on."""

import asyncio
from typing import Any, cast

from aiohttp import web


class CancelsUnwanted:
    """What a connection needs for `cancelled_on_disconnect`."""

    unwanted_without_client: asyncio.Task[Any] | None = None

    def disconnected(self) -> None:
        """The client has left."""
        if self.unwanted_without_client is not None:
            self.unwanted_without_client.cancel()


class cancelled_on_disconnect:  # noqa: N801 - reads like the statement that it is
    """`with cancelled_on_disconnect(request):` cancels the block if the client leaves.

    For work that changes nothing or may end anywhere. Raises `ConnectionResetError` for a client
    that has left before.
    """

    __slots__ = ("_connection",)

    def __init__(self, request: web.Request) -> None:
        self._connection = cast("CancelsUnwanted", request.protocol)
        if request.transport is None:
            raise ConnectionResetError("the client is gone")

    def __enter__(self) -> None:
        self._connection.unwanted_without_client = asyncio.current_task()

    def __exit__(self, *_: object) -> None:
        self._connection.unwanted_without_client = None
