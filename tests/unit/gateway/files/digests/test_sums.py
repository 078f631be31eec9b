"""A sum of chunks is the sum of the whole."""

import hashlib
import os

import pytest

from gateway.files.digests.sums import RunningSum


@pytest.mark.parametrize(
    "sizes", [[], [0], [1], [1 << 16, (1 << 16) + 1, 5, 1 << 20], [1 << 20] * 3, [3, 1 << 21, 3]]
)
@pytest.mark.parametrize("kind", [bytes, bytearray])
async def test_chunks_of_any_size_are_added_in_order(sizes: list[int], kind: type[bytes]) -> None:
    total, chunks = RunningSum(), [kind(os.urandom(size)) for size in sizes]
    for chunk in chunks:
        await total.add(chunk)
    assert await total.hexdigest() == hashlib.sha256(b"".join(chunks)).hexdigest()
