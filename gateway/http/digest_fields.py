"""Digests in header fields (RFC 9530): dictionaries of structured fields (RFC 9651).

Of their algorithms this service has `sha-256`, and ignores all others.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Final

from multidict import MultiMapping

REPR_DIGEST: Final = "Repr-Digest"
CONTENT_DIGEST: Final = "Content-Digest"
WANT_REPR_DIGEST: Final = "Want-Repr-Digest"

_ALGORITHM: Final = "sha-256"
_BYTES: Final = 32
_LONGEST: Final = 4_096
"""Characters of a field that are read: reading takes time."""

_WANTED: Final = range(1, 11)

# each alternative begins with another character: nothing is tried twice
_ITEM: Final = (
    r"(?:-?[0-9]{1,12}\.[0-9]{1,3}|-?[0-9]{1,15}(?!\.)"  # decimal, integer
    r'|"(?:[ !#-\[\]-~]|\\["\\])*"'  # string
    r"|[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*"  # token
    r"|:[A-Za-z0-9+/=]*:"  # byte sequence
    r"|\?[01]"  # boolean
    r"|@-?[0-9]{1,15}"  # date
    r'|%"(?:[ !#$&-~]|%[0-9a-f]{2})*")'  # display string
)
_KEY: Final = r"[a-z*][a-z0-9_\-.*]*"
_PARAMETERS: Final = rf"(?:; *{_KEY}(?:={_ITEM})?)*"
_INNER_LIST: Final = rf"\( *(?:{_ITEM}{_PARAMETERS}(?: +{_ITEM}{_PARAMETERS})*)? *\)"
_MEMBER: Final = re.compile(rf"({_KEY})(?:=({_ITEM}|{_INNER_LIST}))?{_PARAMETERS}", re.ASCII)
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")


class MalformedDigest(ValueError):
    """A field is no dictionary, or its `sha-256` is no digest; the message says so."""


def wants_digest(headers: MultiMapping[str]) -> bool:
    """Whether `Want-Repr-Digest` asks for a SHA-256; a malformed field is ignored."""
    try:
        value = _member(headers.getall(WANT_REPR_DIGEST, ()))
        return value is not None and int(value) in _WANTED
    except ValueError:
        return False


def read_digest(values: Iterable[str]) -> str | None:
    """The SHA-256, in hexadecimal, in the lines of one field; None if it has none.

    Raises `MalformedDigest`.
    """
    value = _member(values)
    if value is None:
        return None
    try:
        digest = base64.b64decode(value[1:-1], validate=True) if value[0] == ":" else b""
    except binascii.Error:
        digest = b""
    if len(digest) != _BYTES:
        raise MalformedDigest(f"{_ALGORITHM} must be 32 bytes in base64 between colons")
    return digest.hex()


def repr_digest(sha256: str) -> str:
    """The value of `Repr-Digest` for this SHA-256, in hexadecimal."""
    return f"{_ALGORITHM}=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def _member(values: Iterable[str]) -> str | None:
    """The value of `sha-256` as it is written; `?1` if it has none. Raises `MalformedDigest`."""
    text = ", ".join(values).strip(" ")
    if len(text) > _LONGEST:
        raise MalformedDigest("the field is too long")
    # the last member counts of those with the same key
    return dict(_members(text)).get(_ALGORITHM) if text else None


def _members(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while (found := _MEMBER.match(text, position)) is not None:
        yield found[1], found[2] or "?1"
        if found.end() == len(text):
            return
        comma = _COMMA.match(text, found.end())
        if comma is None:
            break
        position = comma.end()
    raise MalformedDigest("the field is no dictionary")
