"""A blocking iterator in a thread, over bytes that the event loop receives."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.files.unpacking.thread import Source, advance


async def chunks(*found: bytes, then: Exception | None = None):
    for chunk in found:
        await asyncio.sleep(0)
        yield chunk
    if then is not None:
        raise then


async def test_items_are_made_in_a_thread_of_what_arrives():
    source = Source(chunks(b"a", b"bc"))
    sizes = map(len, source)
    with ThreadPoolExecutor(1) as threads:
        assert [await advance(threads, sizes, source) for _ in range(3)] == [1, 2, None]


async def test_the_error_of_what_arrives_is_raised_as_it_is():
    source = Source(chunks(b"a", then=ConnectionResetError("gone")))
    with ThreadPoolExecutor(1) as threads:
        assert await advance(threads, source, source) == b"a"
        with pytest.raises(ConnectionResetError, match="gone"):
            await advance(threads, source, source)


async def test_a_cancellation_ends_the_wait_of_the_thread_and_lets_others_go_on():
    waiting = asyncio.Event()

    async def never():
        waiting.set()
        await asyncio.Event().wait()
        yield b""

    source = Source(never())
    with ThreadPoolExecutor(1) as threads:
        step = asyncio.ensure_future(advance(threads, source, source))
        await waiting.wait()
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert await advance(threads, source, source) is None
        other = Source(chunks(b"x"))
        assert await advance(threads, other, other) == b"x"
