"""The digest of an upload whose bytes are arriving."""

import hashlib

import pytest

from common.runtime.sha256 import Sha256
from gateway.uploads.digests import RunningDigest
from gateway.uploads.protocol import Checksum

CONTENT = bytes(range(250))


@pytest.mark.parametrize("algorithm", [None, "sha1", "sha256"])
async def test_states_are_kept_for_those_who_may_go_on_from_them(algorithm: str | None) -> None:
    checksum = algorithm and Checksum(algorithm, hashlib.new(algorithm, CONTENT).digest())
    digest = RunningDigest(b"", 0, step=100, checksum=checksum or None)
    for begin in range(0, len(CONTENT), 50):
        await digest.feed(bytearray(CONTENT[begin : begin + 50]))
    await digest.finish()
    assert digest.fits
    # a portion with a checksum counts as a whole: one state for each piece would fill the memory
    kept = [0, 50, 100, 150, 200, 250] if checksum is None else [250]
    assert [offset for offset in range(251) if digest.has_state(offset)] == kept
    assert Sha256(digest.take_state(250)).digest() == hashlib.sha256(CONTENT).digest()
