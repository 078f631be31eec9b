"""The digests of files: noted as they arrive, found again, computed where that is worth it."""

import time
from collections.abc import Iterable, Sequence
from typing import Final

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.digests.records import Noted, find_digests
from common.runtime.batching import Batcher
from common.storage.errors import StorageError
from common.storage.paths import UserPath
from common.storage.protocol import Entry, OpenFile, Storage
from common.telemetry.outages import warn_of_database
from gateway.files.digests.notes import DigestNotes
from gateway.files.digests.sums import RunningSum
from gateway.http.limits import user_caller
from gateway.http.shares import Shares, Slot

_COARSEST: Final = 2.0
"""Seconds to which a file system may round times: of a file that was written to longer ago, the
next write changes the version."""

_TURN: Final = 32 << 20
"""Bytes that are read in one turn: users take turns within a file, too."""

_Version = tuple[UserPath, str]


class Digests:
    """SHA-256 of files' versions, in hexadecimal.

    A digest is only ever given with the ETag of the version that it is of. `computes`: whether
    files are read to compute what is not known, as long as somebody waits for it.
    """

    def __init__(
        self,
        database: Database,
        notes: DigestNotes,
        storage: Storage,
        shares: Shares,
        *,
        computes: bool,
    ) -> None:
        self._database = database
        self._notes = notes
        self._storage = storage
        self._shares = shares
        self._computes = computes
        self._running: dict[_Version, Batcher[_Version, str | None]] = {}

    def note(self, path: UserPath, stored: Entry, sha256: str) -> None:
        """Note the digest of a file that was just stored, as long as it stays that one."""
        if stored.is_distinct and stored.etag:
            self._notes.add(Noted.of(path, stored.etag, sha256))

    async def note_all(self, user_id: str, stored: Iterable[tuple[Entry, str]]) -> bool:
        """Note the digests of many files that were just stored, as long as they stay those.

        They are written at once, for which the database is waited for; unknown where it is away.
        Returns whether it is there.
        """
        noted = [
            Noted(user_id, entry.path, entry.etag, sha256)
            for entry, sha256 in stored
            if entry.is_distinct and entry.etag
        ]
        try:
            if noted:
                await self._notes.write_at_once(noted)
        except DatabaseUnavailable as error:
            warn_of_database("digests.unwritten", reason=str(error))
            return False
        return True

    async def follow(self, source: UserPath, moved: Entry) -> None:
        """Note the digest of a file at the place to which it was moved from `source`."""
        if moved.moved_from is None or moved.etag is None:
            return
        sha256 = await self._noted(source, moved.moved_from)
        if sha256 is not None:
            self._notes.add(Noted(source.user, moved.path, moved.etag, sha256))

    async def find(self, path: UserPath, file: OpenFile, slot: Slot) -> str | None:
        """The digest of an open file; None if it is not known, and is not to be computed.

        `slot` is lent to others while it is computed. Raises what reading does, `LimitExceeded`.
        """
        etag = file.entry.etag or ""
        known = await self._noted(path, etag)
        if known is None and not self._computes:
            known = await self._storage.stated_sha256(path, etag)
            if known is not None:
                self._notes.add(Noted.of(path, etag, known))
        if known is None and self._computes:
            async with slot.lent():
                known = await self._compute(path, etag)
        return known

    async def known(self, user_id: str, files: Iterable[Entry]) -> dict[str, str]:
        """What is known of files, by path. Raises `DatabaseUnavailable`."""
        versions = {file.path: file.etag for file in files if file.etag is not None}
        waiting = {path: self._notes.find(user_id, path) for path in versions}
        found = {
            path: noted.sha256
            for path, noted in waiting.items()
            if noted is not None and noted.etag == versions[path]
        }
        async with self._database.reading() as connection:
            return await find_digests(connection, user_id, versions) | found

    async def _noted(self, path: UserPath, etag: str) -> str | None:
        shown = "/".join(path.parts)
        try:
            return (await self.known(path.user, [Entry(shown, 0, None, etag)])).get(shown)
        except DatabaseUnavailable as error:
            warn_of_database("digests.unread", reason=str(error))
            return None

    # -- computing --------------------------------------------------------------------------------
    async def _compute(self, path: UserPath, etag: str) -> str | None:
        """The digest of this version; None if the file is another one by now.

        Requests for one version share its computation, which ends when nobody waits any more;
        those that come meanwhile find its result.
        """
        version = path, etag
        shared = self._running.get(version)
        if shared is None:
            shared = self._running[version] = Batcher(
                self._compute_once,
                cancel_unwanted=True,
                when_idle=lambda: self._running.pop(version),
            )
        return await shared(version)

    async def _compute_once(self, equal: Sequence[_Version]) -> list[str | None]:
        path, etag = equal[0]
        sha256, began = await self._noted(path, etag), time.time()
        if sha256 is not None:
            return [sha256] * len(equal)
        try:
            async with self._storage.open(path) as file:
                if file.entry.etag == etag:
                    sha256 = await self._sum(path.user, file)
            entry = await self._storage.stat(path)
        except StorageError:
            return [None] * len(equal)
        if sha256 is None or entry.etag != etag:
            return [None] * len(equal)
        if entry.modified is not None and entry.modified < began - _COARSEST:
            self._notes.add(Noted.of(path, etag, sha256))
        return [sha256] * len(equal)

    async def _sum(self, user_id: str, file: OpenFile) -> str:
        total, size = RunningSum(), file.entry.size or 0
        for start in range(0, size, _TURN):
            async with self._shares.slot("digest", user_caller(user_id)):
                async for chunk in file.read(start, min(_TURN, size - start)):
                    await total.add(chunk)
        return await total.hexdigest()
