"""Removal of known secrets from text, in any of their spellings."""

import base64
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

import orjson

_MIN_LENGTH: Final = 6
"""Length in characters from which a secret is replaced: a shorter one would match other text."""

_REPLACEMENT: Final = "***"


class Redaction:
    """Replaces secrets: as they are, in JSON, in a URL; if `encoded`, in base64 as well, even as a
    part of the encoded text (HTTP's basic authentication)."""

    def __init__(self, secrets: Iterable[str], *, encoded: bool = False) -> None:
        long = [secret for secret in dict.fromkeys(secrets) if len(secret) >= _MIN_LENGTH]
        found = {spelling for secret in long for spelling in _spellings(secret)}
        if encoded:
            found |= {part for secret in long for part in _in_base64(secret)}
        self._spellings = sorted(found, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, _REPLACEMENT)
        return text


NO_REDACTION: Final = Redaction(())


def _spellings(secret: str) -> Iterator[str]:
    yield from (secret, repr(secret)[1:-1], orjson.dumps(secret).decode()[1:-1])
    yield from (quote(secret, safe=""), quote(secret), quote_plus(secret))


def _in_base64(secret: str) -> Iterator[str]:
    """The secret's spellings inside of encoded text: one for each offset modulo 3."""
    raw = secret.encode()
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw).decode().rstrip("=")
        # the characters at the ends hold bits of their neighbours as well
        part = text[(0, 2, 3)[before] : len(text) - bool((before + len(raw)) % 3)]
        yield part
        yield part.translate(str.maketrans("+/", "-_"))
