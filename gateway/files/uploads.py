"""Uploads: the form field `file`, streamed into the storage, within the limits (413, 408, 507)."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from common.storage.budget import ChunkBudget
from common.storage.errors import InvalidPath
from common.storage.paths import UserPath, check_name
from common.storage.protocol import LINK_SECONDS, SMALL_FILE, Entry, PreparedRequest, Storage
from common.usage.quota import Quota, UploadShare
from gateway.files.digests.service import Digests
from gateway.files.digests.stated import FIELD as SHA256_FIELD
from gateway.files.digests.stated import StatedDigest
from gateway.files.digests.sums import RunningSum
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


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that was uploaded, and its SHA-256 in hexadecimal."""

    entry: Entry
    sha256: str


class Uploads:
    """Stores the files that clients upload.

    A client may pause for at most `client_timeout` seconds (0: no limit) between two chunks.
    """

    def __init__(
        self,
        storage: Storage,
        limits: UploadLimits,
        quota: Quota,
        digests: Digests,
        *,
        client_timeout: float,
    ) -> None:
        self._storage = storage
        self._quota = quota
        self._digests = digests
        self._limits = limits
        self._client_timeout = client_timeout
        self._budget = ChunkBudget()

    async def receive(self, body: Body, directory: UserPath, *, waiting: Waiting) -> Stored:
        """Store the file of the form in `directory`; each wait for the client is in `waiting()`.

        Raises `Invalid` without a file, for a second one, for a name that no file can have, for
        another SHA-256 than the form states, and for an incomplete body; `TooLarge`,
        `QuotaExceeded` and `OutOfSpace` beyond the limits; `TooSlow`; and what `Storage.write`
        raises.
        """
        await self._limits.check(body.length or 0, around=MAX_AROUND)
        async with self._quota.upload(directory.user) as share:
            await share.expect(max(0, (body.length or 0) - MAX_AROUND))
            stored = await self._store(body, directory, share, waiting)
            share.place(stored.entry)
            return stored

    async def _store(
        self, body: Body, directory: UserPath, share: UploadShare, waiting: Waiting
    ) -> Stored:
        form = await self._open(body, waiting)
        path = _place(directory, form.name)
        received = _Received(form)
        try:
            with TRANSFERS.labels("in").track_inprogress(), self._budget.transfer():
                entry = await self._storage.write(path, self._content(received, share))
        except _BROKEN as error:
            raise _invalid(_UNREADABLE, "multipart_invalid") from error
        self._digests.note(path, entry, received.sha256)
        return Stored(entry, received.sha256)

    @asynccontextmanager
    async def read(
        self, body: Body, *, waiting: Waiting
    ) -> AsyncIterator[AsyncGenerator[bytearray, None]]:
        """The file of the form, of which nothing is stored; ends only if the form is complete.

        Raises, like its bytes, as `receive` does for the form.
        """
        form = await self._open(body, waiting)
        try:
            with TRANSFERS.labels("in").track_inprogress(), self._budget.transfer():
                async with aclosing(self._pieces(_Received(form))) as pieces:
                    yield pieces
        except _BROKEN as error:
            raise _invalid(_UNREADABLE, "multipart_invalid") from error

    async def prepare(
        self, directory: UserPath, *, sha256: str | None = None
    ) -> PreparedRequest | None:
        """A presigned upload into `directory` within the limits; None if only this API takes it.

        `sha256`: of the only file that may be uploaded. Raises `QuotaExceeded` if nothing is left,
        and what `Storage.presign_upload` raises.
        """
        limits = (self._limits.most or None, await self._quota.left(directory.user))
        most = min((limit for limit in limits if limit is not None), default=None)
        link = await self._storage.presign_upload(directory, most=most, sha256=sha256)
        if link is not None:
            self._quota.ledger.touch(directory.user, active_for=LINK_SECONDS)
        return link

    async def find_faults(self, body: Body) -> Sequence[Fault]:
        """The faults of a form that can be found before the content of its file is read."""
        try:
            form = await self._open(body)
            _place(UserPath(""), form.name)
        except Invalid as error:
            return error.faults
        return ()

    async def _open(self, body: Body, waiting: Waiting = nullcontext) -> "_Form":
        """The form, read up to the content of its file. Raises `Invalid`."""
        if not body.content_type.lower().startswith("multipart/") or body.stream.at_eof():
            raise _invalid("Field required", "missing")
        try:
            form = FormReader(
                body.content_type,
                body.stream,
                timeout=self._client_timeout,
                waiting=waiting,
                kept=SHA256_FIELD,
            )
            name = await form.find_file(_FIELD)
        except _BROKEN as error:
            raise _invalid(_UNREADABLE, "multipart_invalid") from error
        # browsers send `tree/deep/x.txt` of an uploaded folder, Windows programs `C:\dir\x.txt`
        name = name and name.replace("\\", "/").rpartition("/")[2]
        if not name:
            raise _invalid("Field required", "missing")
        stated = StatedDigest(form)
        stated.read_headers()
        stated.value()
        return _Form(form, name, stated)

    async def _content(self, received: "_Received", share: UploadShare) -> AsyncIterator[bytearray]:
        """The content of the file, within the limits, which count what has arrived."""
        limit = self._limits.most

        async def count(chunk: int) -> None:
            if limit and received.size > limit:
                raise self._limits.too_large()
            await share.add(chunk)

        async with aclosing(self._pieces(received, count)) as pieces:
            async for piece in pieces:
                yield piece

    async def _pieces(
        self, received: "_Received", count: Callable[[int], Awaitable[None]] | None = None
    ) -> AsyncGenerator[bytearray, None]:
        """The bytes of the file, in pieces as large as is good for sums and storages.

        Ends only if the form is complete, has no other file, and states no other digest. `count`
        gets the sizes of what arrives.
        """
        form = received.form
        piece, enough = bytearray(), SMALL_FILE + 1  # the storage soon learns that it is no more
        try:
            while chunk := await form.reader.read(min(_CHUNK, self._budget.size)):
                received.size += len(chunk)
                if count is not None:
                    await count(len(chunk))
                piece += chunk
                if len(piece) >= enough:
                    await received.total.add(piece)
                    yield piece
                    piece, enough = bytearray(), self._budget.size
            if piece:
                await received.total.add(piece)
                yield piece
            if await form.reader.find_file(_FIELD) is not None:
                raise Invalid(Fault(["body", _FIELD], "Only one file may be sent", "too_many"))
            received.sha256 = await received.total.hexdigest()
            form.stated.check(received.sha256)
        finally:
            TRANSFERRED.labels("in").inc(received.size)


@dataclass(frozen=True, slots=True)
class _Form:
    """A form up to the content of its file, which has this name."""

    reader: FormReader
    name: str
    stated: StatedDigest


class _Received:
    """What has arrived of a form's file; `sha256`, in hexadecimal, once it is complete."""

    def __init__(self, form: _Form) -> None:
        self.form = form
        self.total = RunningSum()
        self.size = 0
        self.sha256 = ""


def _place(directory: UserPath, name: str) -> UserPath:
    try:
        check_name(name)
        return directory / name
    except InvalidPath as error:
        raise _invalid(misnamed(name, error), "value_error") from error


def _invalid(sentence: str, kind: str) -> Invalid:
    return Invalid(Fault(["body", _FIELD], sentence, kind))
