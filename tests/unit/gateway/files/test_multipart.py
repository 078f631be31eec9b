"""Forms are read alike however their bytes arrive, and no client is waited for without limit."""

import asyncio
from collections.abc import Iterable

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given
from hypothesis import strategies as st

from gateway.files.multipart import MAX_AROUND, BrokenForm, FormReader
from gateway.http.errors import TooSlow

TYPE = "multipart/form-data; boundary=mark"


def part(disposition: str, content: bytes) -> bytes:
    return f"--mark\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"


def file_part(content: bytes) -> bytes:
    return part('form-data; name="file"; filename="f"', content)


async def read_file(
    pieces: Iterable[bytes], *, kind: str = TYPE, timeout: float = 0, ends: bool = True
) -> tuple[str | None, bytes]:
    """The name and the content of the form's file, whose bytes arrive piece by piece."""
    loop = asyncio.get_running_loop()
    connection = BaseProtocol(loop)
    connection.connection_made(asyncio.Transport())
    stream = StreamReader(connection, 2**22, loop=loop)  # no body here is longer

    async def arrive() -> None:
        for piece in pieces:
            stream.feed_data(piece)
            await asyncio.sleep(0)
        if ends:
            stream.feed_eof()

    arriving = asyncio.create_task(arrive())
    try:
        form = FormReader(kind, stream, timeout=timeout)
        name, content = await form.find_file("file"), b""
        while chunk := await form.read(2**16):
            content += chunk
        assert await form.find_file("file") is None
        return name, content
    finally:
        await arriving


CONTENT = b"\r\n--mar\r\r\n--mar--\r\n\r\n-"
BODY = b"preamble\r\n" + part('form-data; name="key"', b"1") + file_part(CONTENT) + b"--mark--"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_any_division_into_pieces_gives_the_same_file(sizes: list[int]) -> None:
    pieces, start = [], 0
    while start < len(BODY):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(BODY[start : start + size])
        start += size
    assert asyncio.run(read_file(pieces)) == ("f", CONTENT)


@pytest.mark.parametrize("kind", [TYPE, 'multipart/x; a=b; Boundary="mark"; c=d', TYPE + " ;"])
async def test_the_boundary_may_be_quoted_and_stand_anywhere(kind: str) -> None:
    assert await read_file([BODY], kind=kind) == ("f", CONTENT)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (BODY, "multipart/form-data; boundary=" + "b" * 71),
        (BODY, 'multipart/form-data; boundary=""'),
        (BODY[:-1], TYPE),
        (BODY + b"-", TYPE),
        (part("x", b"") * 1_001 + BODY, TYPE),
        (b"x" * (MAX_AROUND + 1) + BODY, TYPE),
        (part("x", b"x" * MAX_AROUND) + BODY, TYPE),
        (file_part(b"") + part("x", b"x" * MAX_AROUND) + b"--mark--", TYPE),
        ((b"--mark\r\n" + b"X: " + b"x" * 8_000 + b"\r\n\r\n\r\n") * 140 + BODY, TYPE),
        (file_part(b"").replace(b"\r\n\r\n", b"\r\nX" + b"x" * 9_000 + b": 1\r\n\r\n"), TYPE),
        (b"--mark\r\n" + b"X: 1\r\n" * 200 + b"\r\n\r\n--mark--", TYPE),
    ],
    ids=range(11),
)
async def test_what_is_no_form_or_no_complete_one_is_refused(body: bytes, kind: str) -> None:
    with pytest.raises(BrokenForm):
        await read_file([body], kind=kind)


async def test_the_size_of_the_file_does_not_count_as_bytes_around_it() -> None:
    large = b"x" * (2 * MAX_AROUND)
    assert await read_file([file_part(large) + b"--mark--"]) == ("f", large)


@pytest.mark.parametrize("length", [0, 40, len(BODY) - 4])
async def test_a_client_that_stands_still_is_given_up(length: int) -> None:
    with pytest.raises(TooSlow):
        await read_file([BODY[:length]], timeout=0.01, ends=False)


async def test_without_a_timeout_any_client_is_waited_for() -> None:
    waiting = asyncio.create_task(read_file([BODY[:40]], ends=False))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    waiting.cancel()
