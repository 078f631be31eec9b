"""The reader that counts answers."""

import pytest

from benchmarks.answers import AnswerReader, NotHttp

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n4;x=1\r\ndefg\r\n0\r\nTrailer: t\r\n\r\n"
)
STREAM = PLAIN + EMPTY + CHUNKED + PLAIN
EXPECTED = [(200, b"hello"), (204, b""), (201, b"abcdefg"), (200, b"hello")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, len(STREAM)])
def test_answers_are_found_however_they_are_cut(size: int) -> None:
    reader = AnswerReader(keep_bodies=True)
    found = []
    for start in range(0, len(STREAM), size):
        found += reader.feed(STREAM[start : start + size])
    assert found == EXPECTED


def test_bodies_are_forgotten_unless_they_are_kept() -> None:
    assert AnswerReader().feed(PLAIN) == [(200, b"")]


def test_an_answer_counts_only_when_it_is_whole() -> None:
    reader = AnswerReader(keep_bodies=True)
    assert reader.feed(PLAIN[:-1]) == []
    assert reader.feed(PLAIN[-1:]) == [(200, b"hello")]


@pytest.mark.parametrize(
    "wrong",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_no_answer_or_has_no_end_is_refused(wrong: bytes) -> None:
    with pytest.raises(NotHttp):
        AnswerReader().feed(wrong)
