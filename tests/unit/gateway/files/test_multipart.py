"""Forms are read alike for any division of their bytes, and slow clients time out."""

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
    chunks: Iterable[bytes], *, kind: str = TYPE, timeout: float = 0, ends: bool = True
) -> tuple[str | None, bytes]:
    """The name and the content of the form's file, whose bytes arrive chunk by chunk."""
    loop = asyncio.get_running_loop()
    connection = BaseProtocol(loop)
    connection.connection_made(asyncio.Transport())
    stream = StreamReader(connection, 2**22, loop=loop)  # no body here is longer

    async def arrive() -> None:
        for chunk in chunks:
            stream.feed_data(chunk)
            await asyncio.sleep(0)
        if ends:
            stream.feed_eof()

    arriving = asyncio.create_task(arrive())
    try:
        form = FormReader(kind, stream, timeout=timeout)
        name, content = await form.find_file("file"), b""
        while read := await form.read(2**16):
            content += read
        assert await form.find_file("file") is None
        return name, content
    finally:
        await arriving


CONTENT = b"\r\n--mar\r\r\n--mar--\r\n\r\n-"
KEY = part('form-data; name="key"', b"1" * 40)
BODY = b"preamble\r\n\r\n--other\r\n" + KEY + file_part(CONTENT) + KEY + b"--mark--"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_any_division_into_chunks_gives_the_same_file(sizes: list[int]) -> None:
    chunks, start = [], 0
    while start < len(BODY):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(BODY[start : start + size])
        start += size
    assert asyncio.run(read_file(chunks)) == ("f", CONTENT)


@pytest.mark.parametrize("kind", [TYPE, 'multipart/x; a=b; Boundary="mark"; c=d', TYPE + " ;"])
async def test_the_boundary_may_be_quoted_and_stand_anywhere(kind: str) -> None:
    assert await read_file([BODY], kind=kind) == ("f", CONTENT)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (BODY, "multipart/form-data; boundary=" + "b" * 71),
        (BODY, 'multipart/form-data; boundary=""'),
        (BODY, "multipart/form-data"),
        (BODY, "multipart/form-data; boundary=other"),
        (BODY[:-1], TYPE),
        (BODY[:-4], TYPE),
        (BODY.removesuffix(KEY + b"--mark--"), TYPE),
        (BODY.replace(b"\r\n\r\n", b"\r\n"), TYPE),
        (BODY.replace(b"Disposition:", b"Disposition"), TYPE),
        (BODY + b"-", TYPE),
        (part("x", b"") * 1_001 + BODY, TYPE),
        (b"x" * (MAX_AROUND + 1) + BODY, TYPE),
        (part("x", b"x" * MAX_AROUND) + BODY, TYPE),
        (file_part(b"") + part("x", b"x" * MAX_AROUND) + b"--mark--", TYPE),
        ((b"--mark\r\n" + b"X: " + b"x" * 8_000 + b"\r\n\r\n\r\n") * 140 + BODY, TYPE),
        (file_part(b"").replace(b"\r\n\r\n", b"\r\nX" + b"x" * 9_000 + b": 1\r\n\r\n"), TYPE),
        (b"--mark\r\n" + b"X: 1\r\n" * 200 + b"\r\n\r\n--mark--", TYPE),
    ],
    ids=range(17),
)
async def test_broken_and_incomplete_forms_are_refused(body: bytes, kind: str) -> None:
    with pytest.raises(BrokenForm):
        await read_file([body], kind=kind)


async def test_the_size_of_the_file_does_not_count_as_bytes_around_it() -> None:
    large = b"x" * (2 * MAX_AROUND)
    assert await read_file([file_part(large) + b"--mark--"]) == ("f", large)


@pytest.mark.parametrize("length", [0, 40, len(BODY) - 4])
async def test_a_client_that_stops_sending_times_out(length: int) -> None:
    with pytest.raises(TooSlow):
        await read_file([BODY[:length]], timeout=0.01, ends=False)


async def test_without_a_timeout_a_client_may_stop_sending() -> None:
    waiting = asyncio.create_task(read_file([BODY[:40]], ends=False))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    waiting.cancel()
