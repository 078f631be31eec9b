"""Parts of uploads to S3 hold what they must, and no more memory than that takes."""

import pytest

from common.storage.s3.part_sizes import LARGEST_FILE, PART_BYTES, PartSizes

GIB = 1 << 30


@pytest.mark.parametrize("length", [1, 80_000 * (1 << 20), 80_000 * (1 << 20) + 1, LARGEST_FILE])
def test_ten_thousand_parts_hold_a_file_and_begin_small(length: int) -> None:
    sizes = PartSizes(length)
    assert sizes.of(0) == PART_BYTES
    assert sum(map(sizes.of, range(10_000))) >= length


@pytest.mark.parametrize("length", [20 * GIB, LARGEST_FILE])
def test_an_offset_is_located_in_the_part_that_holds_it(length: int) -> None:
    sizes, start = PartSizes(length), 0
    for index in range(3_500):
        size = sizes.of(index)
        assert size % sizes.step == 0
        for offset in (start, start + size // 2, start + size - 1):
            assert sizes.locate(offset) == (index, start)
        start += size


def test_parts_stay_small_as_long_as_they_suffice() -> None:
    assert PartSizes(80_000 << 20).of(9_999) == PART_BYTES
