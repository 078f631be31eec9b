"""The last step of a resumable upload: its file comes to its place, and the upload is finished.

Every step may be the last of a process that is killed: the next one repeats it.
"""

import time
from typing import Final

from common.database.engine import Database
from common.digests.records import Noted, note_digests
from common.storage.errors import NotFound
from common.storage.protocol import Entry, Storage
from common.uploads.records import Upload, note_placed
from common.usage.records import Change, mark_active, record_changes

_MARGIN: Final = 1.0
"""Seconds by which the database's clock may seem to be behind (see `common.usage.ledger`)."""


async def place(database: Database, storage: Storage, upload: Upload, owner: str) -> Upload | None:
    """Place the file of a whole upload; the upload as it is then, None if its lease was lost.

    Raises what `Storage.place` raises, but for a file that was placed before.
    """
    began = time.monotonic()
    digest: Noted | None = None
    try:
        entry = await storage.place(upload.staged)
    except NotFound:
        entry = await _placed_before(storage, upload)  # perhaps another file of that length
    else:
        if entry.is_distinct and entry.etag and upload.sha256:
            digest = Noted.of(upload.staged.path, entry.etag, upload.sha256)
    change = Change(
        upload.user_id,
        upload.length - entry.replaced,
        began=time.monotonic() - began + _MARGIN,
    )
    async with database.transaction() as tx:
        finished = await note_placed(tx, upload.id, owner, entry.etag)
        if finished is not None:
            await mark_active(tx, {upload.user_id: 0.0})
            await record_changes(tx, [change])
        if digest is not None:
            await note_digests(tx, [digest])
    return finished


async def _placed_before(storage: Storage, upload: Upload) -> Entry:
    """The file that a killed process has placed, unless it is another one by now."""
    path = upload.staged.path
    try:
        entry = await storage.stat(path)
    except NotFound:
        return Entry(str(path), upload.length)
    return entry if entry.size == upload.length else Entry(str(path), upload.length)
