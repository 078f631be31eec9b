"""Listings as clients get them; those that are asked for at the same time are made once."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from common.runtime.batching import Batcher
from common.storage.paths import UserPath
from common.storage.protocol import BATCH, Storage
from gateway.files.entries import render


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be listed, and which part of it is to be shown."""

    path: UserPath
    recursive: bool
    show_dirs: bool
    details: bool
    after: str
    limit: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing as JSON; `following`: where its next part starts after, if there is one."""

    body: bytes
    following: str | None


class Listings:
    """Makes listings. Equal ones that are asked for while one is being made share the next.

    So each shows what was there when it was asked for, and a client that asks for a large
    directory many times at once costs as much as one that asks twice.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._under_way: dict[Asked, Batcher[Asked, Listing]] = {}

    async def make(self, asked: Asked) -> Listing:
        """Raises what `Storage.walk` does."""
        shared = self._under_way.get(asked)
        if shared is None:
            shared = self._under_way[asked] = Batcher(
                self._make_once, when_idle=lambda: self._under_way.pop(asked)
            )
        return await shared(asked)

    async def _make_once(self, equal: Sequence[Asked]) -> list[Listing]:
        return [await self._list(equal[0])] * len(equal)

    async def _list(self, asked: Asked) -> Listing:
        """Each batch becomes JSON as it comes, so that a long listing takes little more memory."""
        most = BATCH if asked.limit is None else min(BATCH, asked.limit + 1)
        found = self._storage.walk(
            asked.path, recursive=asked.recursive, after=asked.after, batch=most
        )
        pieces: list[bytes] = []
        left, last = asked.limit, ""
        async with aclosing(found) as batches:
            async for batch in batches:
                if not asked.show_dirs:
                    batch = [entry for entry in batch if not entry.is_directory]
                shown = batch[:left]
                if shown:
                    pieces.append(render(shown, details=asked.details))
                    last = shown[-1].path
                if len(batch) > len(shown):
                    return Listing(_array(pieces), last)
                if left is not None:
                    left -= len(shown)
        return Listing(_array(pieces), None)


def _array(pieces: list[bytes]) -> bytes:
    return b"[%b]" % b",".join(pieces)
