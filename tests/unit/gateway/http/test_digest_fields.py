"""Fields with digests are read as RFC 9530 and RFC 9651 have it."""

import base64
import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.http.digest_fields import MalformedDigest, read_digest, repr_digest, wants_digest

SHA256 = hashlib.sha256(b"content").hexdigest()
GIVEN = repr_digest(SHA256)


def wants(*lines: str) -> bool:
    return wants_digest(CIMultiDict([("want-repr-digest", line) for line in lines]))


@pytest.mark.parametrize(
    "lines",
    [
        ["sha-256=1"], ["sha-256=10"], [" sha-256=3 "], ["sha-256=1;q=2"],
        ["sha-512=10, sha-256=1"], ['s=%"f%c3%bc", sha-256=1'],
        ["sha-512=3", "sha-256=2"], ["sha-256=0, sha-256=4"], ['a="\\"x,", sha-256=5'],
        ["x=(a 1.5;b :aa: ?0) ,\tsha-256=1"], ["d=@1659578233, sha-256=1"],
    ],
)  # fmt: skip
def test_a_digest_is_wanted(lines: list[str]) -> None:
    assert wants(*lines)


@pytest.mark.parametrize(
    "lines",
    [
        [], [""], ["sha-256=0"], ["sha-256=11"], ["sha-256=-1"], ["sha-256"], ["sha-256=?1"],
        ["sha-256=1.0"], ["sha-256=yes"], ["sha-512=1"], ["SHA-256=1"], ["sha-256=1,"],
        ["sha-256=1", "a="], ["sha-256 =1"], ["sha-256=1 sha-512=1"], ["sha-256=1;"],
        ['sha-256=1, a="open'], ["sha-256=1, a=(1"], ["sha-256=1, 5=a"], ["sha-256=1", "x" * 5_000],
    ],
)  # fmt: skip
def test_no_digest_is_wanted_and_a_malformed_field_is_ignored_as_a_whole(lines: list[str]) -> None:
    assert not wants(*lines)


@given(st.text(max_size=80))
def test_any_text_is_read(text: str) -> None:
    wants(text)


@pytest.mark.parametrize("repeated", ["a;", "a=(1 ", "a=(", "a=1, ", 'a="', ":", "a=:a", 'a=%"%e'])
def test_a_long_field_takes_no_time(repeated: str) -> None:
    began = time.thread_time()
    wants(repeated * (60_000 // len(repeated)))
    assert time.thread_time() - began < 5  # minutes, if each character were tried from each place


def test_a_stated_digest_is_read_and_other_algorithms_are_ignored() -> None:
    assert read_digest([GIVEN]) == SHA256
    assert read_digest(["sha-512=:AAAA:", f"md5=:AAAA:, {GIVEN};x=1"]) == SHA256
    assert read_digest(["sha-512=:AAAA:"]) is None
    assert read_digest([]) is None


@pytest.mark.parametrize(
    "line",
    [
        "sha-256", "sha-256=1", f"sha-256={SHA256}", f'sha-256="{SHA256}"', "sha-256=::",
        "sha-256=:AAAA:", "sha-256=:A:", "sha-256=:(:", f"{GIVEN},", f"{GIVEN} x",
        f"sha-256=:{base64.b64encode(bytes(33)).decode()}:", "=", "sha-512=(",
    ],
)  # fmt: skip
def test_a_malformed_digest_is_refused(line: str) -> None:
    with pytest.raises(MalformedDigest):
        read_digest([line])
