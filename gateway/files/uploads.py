"""Uploads: the form field `file`, streamed into the storage, within the limits (413, 408, 507)."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from common.storage.budget import ChunkBudget
from common.storage.errors import InvalidPath
from common.storage.paths import UserPath, check_name
from common.storage.protocol import LINK_SECONDS, Entry, PreparedRequest, Storage
from common.usage.quota import Quota, UploadShare
from gateway.files.multipart import MAX_AROUND, BrokenForm, FormReader, Waiting
from gateway.http.errors import Fault, Invalid, misnamed
from gateway.http.upload_limits import UploadLimits
from gateway.metrics import TRANSFERRED, TRANSFERS

_CHUNK: Final = 1 << 18  # what aiohttp buffers before it stops reading from the client
_FIELD: Final = "file"

_UNREADABLE: Final = "The multipart body cannot be read"

_BROKEN: Final = (BrokenForm, HttpProcessingError, web.RequestPayloadError)
"""Errors of a body that is not multipart, or not complete."""


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request: its type, its length in bytes if it is known, and its bytes."""

    content_type: str
    length: int | None
    stream: StreamReader


class Uploads:
    """Stores the files that clients upload.

    A client may pause for at most `client_timeout` seconds (0: no limit) between two chunks.
    """

    def __init__(
        self, storage: Storage, limits: UploadLimits, quota: Quota, *, client_timeout: float
    ) -> None:
        self._storage = storage
        self._quota = quota
        self._limits = limits
        self._client_timeout = client_timeout
        self._budget = ChunkBudget(largest=_CHUNK)

    async def receive(self, body: Body, directory: UserPath, *, waiting: Waiting) -> Entry:
        """Store the file of the form in `directory`; each wait for the client is in `waiting()`.

        Raises `Invalid` without a file, for a second one, for a name that no file can have, and
        for an incomplete body; `TooLarge`, `QuotaExceeded` and `OutOfSpace` beyond the limits;
        `TooSlow`; and what `Storage.write` raises.
        """
        await self._limits.check(body.length or 0, around=MAX_AROUND)
        async with self._quota.upload(directory.user) as share:
            await share.expect(max(0, (body.length or 0) - MAX_AROUND))
            stored = await self._store(body, directory, share, waiting)
            share.place(stored)
            return stored

    async def _store(
        self, body: Body, directory: UserPath, share: UploadShare, waiting: Waiting
    ) -> Entry:
        form, name = await self._open(body, waiting)
        path = _place(directory, name)
        try:
            with TRANSFERS.labels("in").track_inprogress(), self._budget.transfer():
                return await self._storage.write(path, self._content(form, share))
        except _BROKEN as error:
            raise _invalid(_UNREADABLE, "multipart_invalid") from error

    @asynccontextmanager
    async def read(
        self, body: Body, *, waiting: Waiting
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The file of the form, of which nothing is stored; ends only if the form is complete.

        Raises, like its bytes, as `receive` does for the form.
        """
        form, _ = await self._open(body, waiting)
        try:
            with TRANSFERS.labels("in").track_inprogress(), self._budget.transfer():
                async with aclosing(self._chunks(form)) as chunks:
                    yield chunks
        except _BROKEN as error:
            raise _invalid(_UNREADABLE, "multipart_invalid") from error

    async def prepare(self, directory: UserPath) -> PreparedRequest | None:
        """A presigned upload into `directory` within the limits; None if only this API takes it.

        Raises `QuotaExceeded` if nothing is left, and what `Storage.presign_upload` raises.
        """
        limits = (self._limits.most or None, await self._quota.left(directory.user))
        most = min((limit for limit in limits if limit is not None), default=None)
        link = await self._storage.presign_upload(directory, most=most)
        if link is not None:
            self._quota.ledger.touch(directory.user, active_for=LINK_SECONDS)
        return link

    async def find_faults(self, body: Body) -> Sequence[Fault]:
        """The faults of a form that can be found before the content of its file is read."""
        try:
            _, name = await self._open(body)
            _place(UserPath(""), name)
        except Invalid as error:
            return error.faults
        return ()

    async def _open(self, body: Body, waiting: Waiting = nullcontext) -> tuple[FormReader, str]:
        """The form, read up to the content of its file, and the file's name. Raises `Invalid`."""
        if not body.content_type.lower().startswith("multipart/") or body.stream.at_eof():
            raise _invalid("Field required", "missing")
        try:
            form = FormReader(
                body.content_type, body.stream, timeout=self._client_timeout, waiting=waiting
            )
            name = await form.find_file(_FIELD)
        except _BROKEN as error:
            raise _invalid(_UNREADABLE, "multipart_invalid") from error
        # browsers send `tree/deep/x.txt` of an uploaded folder, Windows programs `C:\dir\x.txt`
        name = name and name.replace("\\", "/").rpartition("/")[2]
        if not name:
            raise _invalid("Field required", "missing")
        return form, name

    async def _content(self, form: FormReader, share: UploadShare) -> AsyncIterator[bytes]:
        """The content of the file, within the limits."""
        received, limit = 0, self._limits.most
        async with aclosing(self._chunks(form)) as chunks:
            async for chunk in chunks:
                received += len(chunk)
                if limit and received > limit:
                    raise self._limits.too_large()
                await share.add(len(chunk))
                yield chunk

    async def _chunks(self, form: FormReader) -> AsyncGenerator[bytes, None]:
        """The bytes of the file; ends only if the form is complete and has no other."""
        received = 0
        try:
            while chunk := await form.read(self._budget.size):
                received += len(chunk)
                yield chunk
            if await form.find_file(_FIELD) is not None:
                raise Invalid(Fault(["body", _FIELD], "Only one file may be sent", "too_many"))
        finally:
            TRANSFERRED.labels("in").inc(received)


def _place(directory: UserPath, name: str) -> UserPath:
    try:
        check_name(name)
        return directory / name
    except InvalidPath as error:
        raise _invalid(misnamed(name, error), "value_error") from error


def _invalid(sentence: str, kind: str) -> Invalid:
    return Invalid(Fault(["body", _FIELD], sentence, kind))
