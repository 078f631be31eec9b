"""`/url` answers: the request that a client sends next, presigned or to this API itself."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from common.storage.protocol import PreparedRequest
from gateway.http.routing import decode_path

_ENDING: Final = "/url"


@dataclass(frozen=True, slots=True)
class SentRequest:
    """What the answer repeats of the request: origin, path as it was sent, `Authorization`.

    `authorization` is None for a caller by cookie: its client sends that anyway.
    """

    origin: str
    raw_path: str
    authorization: str | None


def to_this_api(
    sent: SentRequest, method: str, ending: str, data: dict[str, str] | None = None
) -> PreparedRequest:
    """The URL of the request as it was sent, with `ending` in place of the final `/url`; `data`:
    form fields."""
    raw = sent.raw_path
    if raw.endswith(_ENDING):
        path = raw.removesuffix(_ENDING) + ending
    else:  # the ending was percent-encoded
        path = quote(decode_path(raw).removesuffix(_ENDING)) + ending
    headers = {} if sent.authorization is None else {"authorization": sent.authorization}
    return PreparedRequest(method, f"{sent.origin}{path}", headers, data or {})
