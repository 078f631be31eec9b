"""Cursors: where the next page begins, signed, so that a cursor fits only the search it is from."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Final

import orjson

from gateway.http.errors import Fault, Invalid
from gateway.jobs.finding.search import DATES, Place, Search

_PURPOSE: Final = b"cursors of jobs"
_MAC_BYTES: Final = 16


class Cursors:
    """Makes and reads cursors; all gateways with the same secret understand each other's."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), _PURPOSE, "sha256")

    def make(self, user_id: str, search: Search, place: Place) -> str:
        """The cursor of the page that begins behind a place."""
        content = orjson.dumps([place.key, place.id])
        mac = self._sign(user_id, search, content)
        return urlsafe_b64encode(mac + content).rstrip(b"=").decode()

    def read(self, user_id: str, search: Search, cursor: str) -> Place:
        """The place. Raises `Invalid` for a cursor of another user, filter or order, or a forged
        one."""
        try:
            raw = cursor.encode("ascii")
            signed = urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
            is_canonical = urlsafe_b64encode(signed).rstrip(b"=") == raw
        except ValueError:
            raise _wrong() from None
        mac, content = signed[:_MAC_BYTES], signed[_MAC_BYTES:]
        if not is_canonical or not hmac.compare_digest(mac, self._sign(user_id, search, content)):
            raise _wrong()
        key, job_id = orjson.loads(content)
        if key is not None and search.sort in DATES:
            key = datetime.fromisoformat(key)
        return Place(key, job_id)

    def _sign(self, user_id: str, search: Search, content: bytes) -> bytes:
        about = orjson.dumps([user_id, search.as_json(), content.decode("latin-1")])
        return hmac.digest(self._key, about, "sha256")[:_MAC_BYTES]


def _wrong() -> Invalid:
    sentence = (
        "Value error, this cursor is not one of this search: take it from the Link of a page with"
        " the same filters and sort"
    )
    return Invalid(Fault(["query", "cursor"], sentence, "value_error"))
