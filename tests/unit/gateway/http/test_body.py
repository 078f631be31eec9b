"""What the body of a request takes of the memory."""

from unittest.mock import Mock

import pytest
from aiohttp import StreamReader
from aiohttp.test_utils import make_mocked_request

from gateway.http import body
from gateway.http.keys import CALLER
from gateway.http.limits import Caller, Overloaded

SIZE = 1_000_000
SMALL = 64 * 1024


async def test_a_large_body_that_waits_for_its_turn_is_not_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: object) -> None:
        raise Overloaded("nothing is free", 1.0)

    monkeypatch.setattr(body, "acquire", refuse)
    stream = StreamReader(Mock(_reading_paused=False), SIZE)
    stream.feed_data(bytes(SIZE))
    stream.feed_eof()
    request = make_mocked_request(
        "POST", "/", {"Content-Length": str(SIZE)}, payload=stream, client_max_size=SIZE
    )
    request[CALLER] = Caller("somebody")
    with pytest.raises(Overloaded):
        await body.read_body(request)
    assert len(stream.read_nowait()) >= SIZE - SMALL - 1
