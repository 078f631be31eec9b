"""Secrets are removed from text in any spelling."""

import base64
import json
import re
from urllib.parse import quote

import pytest

from common.telemetry.redaction import Redaction

SECRET = 'pass"word\\+/?&=%'


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        json.dumps({"key": SECRET}),
        repr({"key": SECRET}),
        quote(SECRET, safe=""),
        f"postgresql://user:{quote(SECRET, safe='')}@host/name",
    ],
)
def test_a_secret_is_removed_in_every_spelling(shown: str) -> None:
    left = Redaction([SECRET])(f"before {shown} after")
    assert re.fullmatch(r"before .*\*\*\*.* after", left)
    assert "word" not in left


@pytest.mark.parametrize("user", ["", "a", "ab", "abc", "longer"])
@pytest.mark.parametrize("after", ["", "x", "xy", "xyz"])
def test_a_secret_is_removed_from_text_that_is_encoded_with_others(user: str, after: str) -> None:
    encoded = base64.b64encode(f"{user}:{SECRET}{after}".encode()).decode()
    left = Redaction([SECRET], encoded=True)(f"Basic {encoded}")
    assert "***" in left
    # the neighbours remain, and some bits of the first and last character
    assert len(left) <= len("Basic ***") + 4 * (len(user) + len(after)) // 3 + 8
    assert Redaction([SECRET])(encoded) == encoded


def test_short_values_and_other_texts_are_left_alone() -> None:
    redaction = Redaction(["key", "", "a-long-key"], encoded=True)
    assert redaction("a key and monkeys") == "a key and monkeys"
    assert redaction("a-long-key, a-long-key") == "***, ***"
