"""Byte ranges and conditions: pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.files.ranges import MAX_RANGES, Span, is_not_modified, parse_ranges


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        (None, None),
        ("bytes=0-0", [Span(0, 1)]),
        ("bytes=2-", [Span(2, 8)]),
        ("bytes=-3", [Span(7, 3)]),
        ("bytes=-99", [Span(0, 10)]),
        ("bytes=5-1,0-1", None),
        ("bytes=0-1,8-9", [Span(0, 2), Span(8, 2)]),
        ("bytes= 0-1 ,, 8-9 ", [Span(0, 2), Span(8, 2)]),
        ("bytes=0-5,5-9", None),
        ("bytes=-", None),
        ("bytes=--1", None),
        ("bytes=1", None),
        ("bytes=٠-١", None),
        ("bytes=10-", []),
        ("bytes=-0", []),
        ("bytes=0-" + "9" * 1000, [Span(0, 10)]),
        ("bytes=0-" + "9" * 100_000, None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_ranges_of_ten_bytes(header: str | None, spans: list[Span] | None) -> None:
    assert parse_ranges(header, 10) == spans


def test_too_many_ranges_are_ignored() -> None:
    some = ",".join(f"{n}-{n}" for n in range(MAX_RANGES))
    assert len(parse_ranges(f"bytes={some}", 1000) or []) == MAX_RANGES
    assert parse_ranges(f"bytes={some},900-900", 1000) is None


@given(st.text(max_size=40), st.integers(0, 2**40))
def test_no_header_breaks_it(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        for span in parse_ranges(header, size) or []:
            assert 0 <= span.start < span.start + span.length <= size


@given(st.text(max_size=40))
def test_no_condition_breaks_it(text: str) -> None:
    is_not_modified({"If-None-Match": text}, "tag", 1.0)
    is_not_modified({"If-Modified-Since": text}, "tag", 1.0)
