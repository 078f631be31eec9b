"""Keeping known secrets out of texts, in whatever spelling they come."""

import base64
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

import orjson

_LEAST: Final = 6
"""Characters below which a secret is left alone: it would blot out unrelated text."""

_BLOT: Final = "***"


class Redaction:
    """Replaces secrets: as they are, in JSON, in a URL; if `encoded`, in base64 as well, be it a
    part of what was encoded (a header of HTTP's basic authentication)."""

    def __init__(self, secrets: Iterable[str], *, encoded: bool = False) -> None:
        long = [secret for secret in dict.fromkeys(secrets) if len(secret) >= _LEAST]
        found = {spelling for secret in long for spelling in _spellings(secret)}
        if encoded:
            found |= {part for secret in long for part in _in_base64(secret)}
        self._spellings = sorted(found, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, _BLOT)
        return text


NO_REDACTION: Final = Redaction(())


def _spellings(secret: str) -> Iterator[str]:
    yield from (secret, repr(secret)[1:-1], orjson.dumps(secret).decode()[1:-1])
    yield from (quote(secret, safe=""), quote(secret), quote_plus(secret))


def _in_base64(secret: str) -> Iterator[str]:
    """What the secret looks like in the middle of something; it may begin at three places."""
    raw = secret.encode()
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw).decode().rstrip("=")
        # characters at the ends hold bits of their neighbours, too
        part = text[(0, 2, 3)[before] : len(text) - bool((before + len(raw)) % 3)]
        yield part
        yield part.translate(str.maketrans("+/", "-_"))
