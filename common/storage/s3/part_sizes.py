"""Sizes of the parts of an upload to S3, which takes at most 10 000 of them."""

from typing import Final

PART_BYTES: Final = 8 << 20
_MOST_PARTS: Final = 10_000
_PARTS_PER_SIZE: Final = 1_000


def part_bytes(number: int) -> int:
    """Parts grow with their number (the first is 0), so that the 10 000 hold 430 GiB."""
    return PART_BYTES * (1 + number // _PARTS_PER_SIZE)


LARGEST_FILE: Final = sum(map(part_bytes, range(_MOST_PARTS)))
"""Bytes that the parts hold."""


class PartSizes:
    """The parts of a file of `length` bytes: small ones as long as they suffice.

    A longer file begins with small parts as well: an announced length alone takes no memory.
    """

    step: Final = PART_BYTES
    """Every part but the last begins and ends at a multiple of it."""

    def __init__(self, length: int) -> None:
        self._grow = length > PART_BYTES * _MOST_PARTS

    def of(self, index: int) -> int:
        """The size of a part (the first is 0) that is not the last one."""
        return part_bytes(index) if self._grow else PART_BYTES

    def locate(self, offset: int) -> tuple[int, int]:
        """The part that holds the byte at `offset`, and the offset of its first byte."""
        index = start = 0
        while True:
            size = self.of(index)
            parts = min((offset - start) // size, _PARTS_PER_SIZE)
            index, start = index + parts, start + parts * size
            if parts < _PARTS_PER_SIZE:
                return index, start
