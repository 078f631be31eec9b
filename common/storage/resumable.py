"""Files that arrive in portions, over any time and through any process.

A storage keeps what has arrived out of sight until the file is whole. Where the next byte belongs
is the caller's to remember (see `common.uploads`): what lies behind it counts as never written.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from common.storage.paths import UserPath

STEP: Final = 8 << 20
"""Bytes after which appended bytes are made safe, at the latest."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A file of `length` bytes that is to be at `path`; `name` is the storage's own for it."""

    path: UserPath
    length: int
    name: str


class Appender(Protocol):
    """Appends to a staged file; for one task at a time.

    `safe` is the offset up to which a killed process loses nothing: the end of a `write`, or a
    multiple of `step`, or after `settle` the end of all. All methods raise `OutOfSpace` and
    `StorageUnavailable`.
    """

    step: int

    @property
    def safe(self) -> int: ...

    async def write(self, data: bytes | bytearray) -> None:
        """Append bytes, which the caller must not change any more."""

    async def settle(self) -> None:
        """Make everything safe that was appended; nothing can be appended any more."""


Known = Callable[[list[str]], Awaitable[set[str]]]
"""Those of the names of staged files that somebody will go on with."""


async def none_known(names: list[str]) -> set[str]:
    """Nobody goes on with any of them."""
    del names
    return set()
