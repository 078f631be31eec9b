"""How much of a file is held in memory at a time: large pieces while few transfers are under way,
small ones while there are many, so that a thousand slow clients take no more than a few fast ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LEAST: Final = 1 << 16
LARGEST: Final = 1 << 20

_TOTAL: Final = 1 << 24


class Pieces:
    """Bytes per piece for transfers that share one budget; ask `size` anew for each piece."""

    def __init__(self, *, total: int = _TOTAL, largest: int = LARGEST) -> None:
        self._total = total
        self._largest = largest
        self._transfers = 0

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """One more transfer is under way meanwhile."""
        self._transfers += 1
        try:
            yield
        finally:
            self._transfers -= 1

    @property
    def size(self) -> int:
        return max(LEAST, min(self._largest, self._total // max(1, self._transfers)))
