"""The headers of tus 1.0.0 (https://tus.io/protocols/resumable-upload), read and written."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from common.storage.errors import InvalidPath
from common.storage.paths import UserPath, check_name
from gateway.http.errors import Fault, Invalid, misnamed
from gateway.http.upload_limits import UPLOAD_TYPES
from gateway.uploads.errors import BadRequest, OtherVersion, UploadNotFound, WrongContentType

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,expiration,checksum,termination"
ALGORITHMS: Final = ("sha1", "sha256")
PORTION: Final = "application/offset+octet-stream"

VERSION_HEADER: Final[Mapping[str, str]] = {"Tus-Resumable": VERSION}
REFUSED: Final[Mapping[str, str]] = {**VERSION_HEADER, "Tus-Version": VERSION}

_LARGEST: Final = 2**63 - 1
_DIGITS: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_LENGTHS: Final = {"sha1": 20, "sha256": 32}
_LOC: Final = ("header", "upload-metadata")
_UNSUPPORTED: Final = {
    "Upload-Defer-Length": "Upload-Length must be known at the creation",
    "Upload-Concat": "Uploads are not concatenated: send the file as one upload",
}
"""Headers of extensions that are not offered; ignored, they would lead to other files."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a portion is to have."""

    algorithm: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What a creation asks for; `expected_sha256` of the whole file, in hexadecimal."""

    path: UserPath
    length: int
    sent_metadata: str
    expected_sha256: str | None


def check_version(headers: Mapping[str, str]) -> None:
    """Raise `OtherVersion` unless the request is one of this version."""
    if headers.get("Tus-Resumable", "").strip() != VERSION:
        raise OtherVersion(f"Tus-Resumable must be {VERSION}")


def check_id(text: str) -> str:
    """The last part of an upload's URL. Raises `UploadNotFound` for one that none can have."""
    if not _ID.fullmatch(text):
        raise UploadNotFound(text)
    return text


def check_portion(content_type: str) -> None:
    """Raise `WrongContentType` for a body that is no portion."""
    if content_type != PORTION:
        raise WrongContentType(f"The content type must be {PORTION}")


def read_new_upload(user_id: str, headers: Mapping[str, str]) -> NewUpload:
    """What the headers of a creation ask for. Raises `BadRequest` and `Invalid`."""
    for name, sentence in _UNSUPPORTED.items():
        if name in headers:
            raise BadRequest(sentence)
    faults: list[Fault] = []
    length, path, expected = 0, UserPath(user_id), None
    sent = headers.get("Upload-Metadata", "")
    try:
        length = read_number(headers, "Upload-Length")
    except Invalid as error:
        faults.extend(error.faults)
    try:
        metadata = _read_metadata(sent)
        expected = _read_sha256(metadata)
        path = _read_path(user_id, metadata)
    except Invalid as error:
        faults.extend(error.faults)
    if faults:
        raise Invalid(*faults)
    return NewUpload(path, length, sent.strip(), expected)


def read_number(headers: Mapping[str, str], name: str) -> int:
    """A header that is a length or an offset in bytes. Raises `Invalid`."""
    loc, text = ("header", name.lower()), headers.get(name)
    if text is None:
        raise Invalid(Fault(loc, "Field required", "missing"))
    if not _DIGITS.fullmatch(text.strip()) or int(text) > _LARGEST:
        raise Invalid(Fault(loc, "Input should be a whole number of bytes", "int_parsing"))
    return int(text)


def read_checksum(headers: Mapping[str, str]) -> Checksum | None:
    """What the portion is to have, if the client says so. Raises `BadRequest`."""
    sent = headers.get("Upload-Checksum")
    if sent is None:
        return None
    algorithm, _, encoded = sent.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise BadRequest(f"The algorithm of Upload-Checksum must be one of {', '.join(ALGORITHMS)}")
    try:
        digest = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != _LENGTHS[algorithm]:
        raise BadRequest(f"Upload-Checksum does not hold a {algorithm} in base64")
    return Checksum(algorithm, digest)


def expiry(moment: datetime) -> str:
    """The value of `Upload-Expires` (RFC 9110, HTTP-date)."""
    return format_datetime(moment.replace(tzinfo=UTC), usegmt=True)


def _read_metadata(sent: str) -> dict[str, str]:
    """Keys and decoded values; a key without a value has an empty one."""
    found: dict[str, str] = {}
    for pair in sent.split(",") if sent.strip() else ():
        key, _, encoded = pair.strip().partition(" ")
        if not key or not key.isascii() or key in found:
            raise _invalid("Each key must be ASCII text, not empty, and there only once")
        try:
            value = base64.b64decode(encoded.strip(), validate=True)
            found[key] = value.decode("utf-8", "surrogateescape")
        except ValueError as error:
            raise _invalid("Each key must be followed by a value in base64") from error
    return found


def _read_sha256(metadata: Mapping[str, str]) -> str | None:
    text = metadata.get("sha256")
    if text is not None and not _SHA256.fullmatch(text):
        raise _invalid("Value error, 'sha256' must be 64 hexadecimal digits")
    return None if text is None else text.lower()


def _read_path(user_id: str, metadata: Mapping[str, str]) -> UserPath:
    """Where the file is to be. Raises `Invalid`."""
    text = metadata.get("path")
    if text is None:
        if "filename" not in metadata or "dir" not in metadata:
            raise _invalid("Value error, 'path' is required, or 'dir' and 'filename'", "missing")
        # as in a form: only the last component of the file's name counts
        name = metadata["filename"].replace("\\", "/").rpartition("/")[2]
        text = f"{metadata['dir']}/{name}"
    try:
        check_name(text.rpartition("/")[2])
        path = UserPath.parse(user_id, text)
    except InvalidPath as error:
        raise _invalid(misnamed(text, error)) from error
    if path.parts[0] not in UPLOAD_TYPES:
        raise _invalid(f"Value error, the path must begin with one of {', '.join(UPLOAD_TYPES)}")
    return path


def _invalid(sentence: str, kind: str = "value_error") -> Invalid:
    return Invalid(Fault(_LOC, sentence, kind))
