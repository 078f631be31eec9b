"""Names of repeated jobs."""

from itertools import islice

import pytest

from gateway.jobs.repeat.names import following


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x", ["x-2", "x-3", "x-4"]),
        ("x-2", ["x-3", "x-4", "x-5"]),
        ("x-1", ["x-2", "x-3", "x-4"]),
        ("x-9", ["x-10", "x-11", "x-12"]),
        ("x-y-7", ["x-y-8", "x-y-9", "x-y-10"]),
        ("x-07", ["x-07-2", "x-07-3", "x-07-4"]),
        ("x2", ["x2-2", "x2-3", "x2-4"]),
        ("-2", ["-2-2", "-2-3", "-2-4"]),
        ("x-", ["x--2", "x--3", "x--4"]),
        ("x-²", ["x-²-2", "x-²-3", "x-²-4"]),
        ("a" * 255, ["a" * 253 + f"-{number}" for number in (2, 3, 4)]),
        ("a" * 253 + "-8", ["a" * 253 + "-9", "a" * 252 + "-10", "a" * 252 + "-11"]),
        ("é" * 127, ["é" * 126 + f"-{number}" for number in (2, 3, 4)]),
    ],
)
def test_a_name_is_followed_by_the_next_numbers(name: str, expected: list[str]) -> None:
    assert list(islice(following(name), 3)) == expected
