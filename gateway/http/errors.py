"""From what went wrong to what the client reads: one table, one shape.

The front end renders `detail` as HTML, so no `<` or `>` that came from a request gets into it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from common.aws import AwsError
from common.database.errors import DatabaseUnavailable
from common.storage import errors as storage
from gateway.http.responses import json_response
from gateway.identity import NotAllowed

Location = Sequence[str | int]

MAX_FAULTS: Final = 100
"""Faults of one request that are looked for and reported: the first ones."""

_SHOWN: Final = 100
"""Characters of what a client sent that a message repeats."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request, as the contract shapes it."""

    loc: Location
    msg: str
    type: str


def misnamed(given: str, error: Exception) -> str:
    """The message about a path or a name that cannot be one: what was given, what is allowed."""
    shown = given if len(given) <= _SHOWN else f"{given[:_SHOWN]}…"
    return f"Value error, {shown!r} given: {error}"


class Invalid(Exception):
    """The request cannot be understood or breaks a rule: 422 with up to `MAX_FAULTS` faults."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults[:MAX_FAULTS]
        super().__init__("; ".join(fault.msg for fault in self.faults))


class Refused(Exception):
    """Base of refusals with a sentence for the client; subclasses have their own status."""

    status: HTTPStatus = HTTPStatus.BAD_REQUEST
    headers: Mapping[str, str] = {}


class NotAuthenticated(Refused):
    """No usable token, or one that does not hold."""

    status = HTTPStatus.UNAUTHORIZED
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012 - never written to


class WrongApiKey(Refused):
    """The internal key is not the right one."""

    status = HTTPStatus.UNAUTHORIZED


class Forbidden(Refused):
    """The caller is known but may not do this."""

    status = HTTPStatus.FORBIDDEN


class NotThere(Refused):
    """What was asked for does not exist, or not for this caller."""

    status = HTTPStatus.NOT_FOUND


class Conflict(Refused):
    """The request clashes with what is there already."""

    status = HTTPStatus.CONFLICT


class TooLarge(Refused):
    """A limit of the service is exceeded."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class TooSlow(Refused):
    """The client does not send what it announced."""

    status = HTTPStatus.REQUEST_TIMEOUT
    headers = {"Connection": "close"}  # noqa: RUF012 - never written to


class Busy(Refused):
    """Too much of this kind is under way; trying again helps."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"Retry-After": "2"}  # noqa: RUF012 - never written to


class PeerUnavailable(Refused):
    """Something this request needs is away; trying again may help."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"Retry-After": "5"}  # noqa: RUF012 - never written to


_RETRY: Final = {"Retry-After": "2"}

_TABLE: Final[dict[type[Exception], tuple[HTTPStatus, str | None, Mapping[str, str]]]] = {
    # exception: status, detail (None: the exception's own sentence), headers
    NotAllowed: (HTTPStatus.FORBIDDEN, None, {}),
    storage.NotFound: (HTTPStatus.NOT_FOUND, "Not Found", {}),
    storage.PathConflict: (HTTPStatus.CONFLICT, None, {}),
    storage.TargetExists: (HTTPStatus.PRECONDITION_FAILED, None, {}),
    storage.DirectoryNotEmpty: (
        HTTPStatus.METHOD_NOT_ALLOWED,
        "Cannot rename a non-empty directory",
        {"Allow": "GET, PUT, DELETE"},
    ),
    storage.PredefinedDirectory: (
        HTTPStatus.METHOD_NOT_ALLOWED,
        "Cannot rename a predefined directory",
        {"Allow": "GET, PUT, DELETE"},
    ),
    storage.OutOfSpace: (
        HTTPStatus.INSUFFICIENT_STORAGE,
        "There is not enough space left for this file",
        {},
    ),
    storage.StorageUnavailable: (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The file storage does not answer at the moment",
        _RETRY,
    ),
    web.RequestPayloadError: (
        HTTPStatus.BAD_REQUEST,
        "The body is not what its headers say",
        {},
    ),
    AwsError: (HTTPStatus.SERVICE_UNAVAILABLE, "AWS does not answer at the moment", _RETRY),
    DatabaseUnavailable: (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The database does not answer at the moment",
        _RETRY,
    ),
}

_HTTP_DETAILS: Final = {404: "Not Found", 405: "Method Not Allowed", 413: "The body is too long"}


def response_for(error: Exception, method: str) -> web.Response | None:
    """The answer to a request that failed with `error`; None for an error nobody foresaw."""
    if isinstance(error, Invalid):
        return invalid_response(error.faults)
    if isinstance(error, Refused):
        return detail_response(error.status, str(error), error.headers)
    if isinstance(error, web.HTTPException):
        detail = _HTTP_DETAILS.get(error.status) or error.reason
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return detail_response(error.status, detail, allow)
    if isinstance(error, storage.InvalidPath):
        if method in {"GET", "HEAD"}:
            return detail_response(HTTPStatus.NOT_FOUND, "Not Found")
        return invalid_response([Fault(["path"], str(error), "value_error")])
    for kind in type(error).__mro__:
        if kind in _TABLE:
            status, detail_or_none, headers = _TABLE[kind]
            return detail_response(status, detail_or_none or str(error), headers)
    return None


def detail_response(
    status: int, detail: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """`{"detail": "<sentence>"}`; the sentence is never empty."""
    text = _harmless(detail) or HTTPStatus(status).phrase
    return json_response({"detail": text}, status=status, headers=headers)


def invalid_response(faults: Sequence[Fault]) -> web.Response:
    body: list[dict[str, Any]] = [
        {
            "loc": [_harmless(part) if isinstance(part, str) else part for part in fault.loc],
            "msg": _harmless(fault.msg) or "Invalid value",
            "type": fault.type,
        }
        for fault in faults
    ]
    return json_response({"detail": body}, status=HTTPStatus.UNPROCESSABLE_ENTITY)


def _harmless(text: str) -> str:
    """Text that a page can render: no markup, and nothing that JSON could not carry."""
    text = text.replace("<", "\\x3c").replace(">", "\\x3e")
    return text.encode("utf-8", "backslashreplace").decode()
