"""Bytes in: the multipart field `file` (RFC 7578), streamed into the storage."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from aiohttp import BodyPartReader, MultipartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy

from common.storage.budget import Pieces
from common.storage.errors import InvalidPath, OutOfSpace
from common.storage.paths import UserPath, check_name
from common.storage.protocol import Entry, Storage
from gateway.http.errors import Fault, Invalid, TooLarge, misnamed
from gateway.metrics import TRANSFERRED, TRANSFERS
from gateway.settings import Limits

CHUNK: Final = 262_144  # what aiohttp buffers before it makes the client wait
_AROUND: Final = 1 << 20
"""Bytes that a form may have besides its file before its length alone tells that it is too long."""

UPLOADS: Final = web.AppKey("uploads", Pieces)

_FIELD: Final = "file"
_USUAL = re.compile(r'form-data; name="([^"\\]*)"; filename="([^"\\]*)"', re.ASCII)
_PLAIN_NAME = re.compile(r';\s*filename="((?:[^"\\]|\\.)*)"', re.IGNORECASE | re.DOTALL)

_BROKEN: Final = (
    ValueError,
    AssertionError,
    LookupError,
    HttpProcessingError,
    web.RequestPayloadError,
)
"""What aiohttp's reader raises for a body that is not multipart, or not to its end."""


class _FlatReader(MultipartReader):
    """Takes each part as bytes, also one that is multipart itself: a saved web page, a mail."""

    def _get_part_reader(self, headers: CIMultiDictProxy[str]) -> BodyPartReader:
        kind = self._mimetype.subtype
        return BodyPartReader(self._boundary, headers, self._content, subtype=kind)


async def receive(
    request: web.Request, storage: Storage, directory: UserPath, *, limit: int
) -> Entry:
    """Store the request's `file` in `directory`.

    Raises `Invalid` without a file, with a name that cannot be one, or with a body that breaks
    off; `TooLarge` beyond `limit` bytes (0: none); whatever the storage refuses with.
    """
    reader, part, name = await _open(request)
    path = _place(directory, name)
    try:
        with TRANSFERS.labels("in").track_inprogress(), request.app[UPLOADS].transfer():
            return await storage.write(path, _chunks(reader, part, request.app[UPLOADS], limit))
    except _BROKEN as error:
        raise _unreadable() from error


async def find_faults(request: web.Request) -> Sequence[Fault]:
    """What is wrong with the body of an upload, as far as can be said before the file's bytes."""
    try:
        _, _, name = await _open(request)
        _place(UserPath(""), name)
    except Invalid as error:
        return error.faults
    return ()


async def _open(request: web.Request) -> tuple[MultipartReader, BodyPartReader, str]:
    """The body, read as far as the file's bytes, and the file's name. Raises `Invalid`."""
    if not request.content_type.startswith("multipart/") or not request.can_read_body:
        raise _missing()
    try:
        reader = _FlatReader(request.headers, request.content)
        return reader, *await _find_file(reader)
    except (*_BROKEN, RuntimeError) as error:
        raise _unreadable() from error


async def _find_file(reader: MultipartReader) -> tuple[BodyPartReader, str]:
    """The first part that is a file of the right field; what comes before it is skipped."""
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader):
            continue
        name = _file_name(part)
        if name is None:
            await part.release()
            continue
        name = name.rpartition("/")[2]  # browsers send `tree/deep/x.txt` of an uploaded folder
        if not name:
            break
        return part, name
    raise _missing()


def _file_name(part: BodyPartReader) -> str | None:
    """The name that the client gave the file; None if this is another field, or no file."""
    disposition = part.headers.get(hdrs.CONTENT_DISPOSITION, "")
    usual = _USUAL.fullmatch(disposition)  # aiohttp takes as long over it as for the whole rest
    if usual is not None:
        return usual[2] if usual[1] == _FIELD else None
    if part.name != _FIELD or part.filename is None:
        return None
    plain = _PLAIN_NAME.search(disposition)
    if plain is not None and "filename*" not in disposition:
        # browsers escape nothing but the quotation mark: a backslash is part of the name
        return plain[1].replace("\\\\", "\\").replace('\\"', '"')
    return part.filename


def _place(directory: UserPath, name: str) -> UserPath:
    try:
        check_name(name)
        return directory / name
    except InvalidPath as error:
        raise Invalid(Fault(["body", _FIELD], misnamed(name, error), "value_error")) from error


async def _chunks(
    reader: MultipartReader, part: Any, pieces: Pieces, limit: int
) -> AsyncIterator[bytes]:
    """The file's bytes; ends only where the body says that the file ends."""
    received = 0
    try:
        while chunk := await part.read_chunk(pieces.size):
            received += len(chunk)
            if limit and received > limit:
                raise _too_large(limit)
            yield chunk
        while (rest := await reader.next()) is not None:
            await rest.release()
    finally:
        TRANSFERRED.labels("in").inc(received)


async def check_room(storage: Storage, coming: int, limits: Limits) -> None:
    """Refuse a body of `coming` bytes that is bound to fail, before it comes.

    Raises `TooLarge`; `OutOfSpace` where fewer bytes than are to be kept free would be left.
    """
    if limits.upload_bytes and coming > limits.upload_bytes + _AROUND:
        raise _too_large(limits.upload_bytes)
    if limits.free_bytes:
        free = (await storage.health()).get("free_bytes")
        if free is not None and free < limits.free_bytes + coming:
            raise OutOfSpace(f"only {free} bytes are left")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"A file may have at most {limit} bytes")


def _unreadable() -> Invalid:
    sentence = "The multipart body cannot be read"
    return Invalid(Fault(["body", _FIELD], sentence, "multipart_invalid"))


def _missing() -> Invalid:
    return Invalid(Fault(["body", _FIELD], "Field required", "missing"))
