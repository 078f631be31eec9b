"""SHA-256 with a state that can be stored."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.runtime import sha256
from common.runtime.sha256 import NoSha256, Sha256


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_any_process_goes_on_from_a_stored_state(pieces: list[bytes]) -> None:
    state = b""
    for piece in pieces:
        digest = Sha256(state)
        digest.update(bytearray(piece))
        state = digest.state()
        assert len(state) <= 103
    assert Sha256(state).digest() == hashlib.sha256(b"".join(pieces)).digest()


def test_part_of_a_buffer_is_added_without_a_copy() -> None:
    digest = Sha256()
    digest.update(bytearray(b"0123456789"), 2, 5)
    digest.update(bytearray(b"0123456789"), 5)
    assert digest.digest() == hashlib.sha256(b"23456789").digest()


def test_a_digest_does_not_end_the_sum() -> None:
    digest = Sha256()
    digest.update(bytearray(b"a"))
    assert digest.digest() == hashlib.sha256(b"a").digest()
    digest.update(bytearray(b"b"))
    assert digest.digest() == hashlib.sha256(b"ab").digest()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sha256._hashlib, "__file__", "/nowhere", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(NoSha256, match="libcrypto"):
        sha256.load.__wrapped__()
