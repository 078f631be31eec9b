"""From exceptions to answers: one table, one shape.

Exceptions carry a sentence and know no HTTP; `ERRORS` maps their types to answers. Each feature
adds the errors of its own (`ERRORS` of its `handlers`), and `gateway.routes` merges the tables.

The front end renders `detail` as HTML, so `<` and `>` never reach it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil
from typing import Any, Final

from aiohttp import web

from common.aws import AwsError
from common.database.errors import DatabaseUnavailable
from common.storage import errors as storage
from common.usage.quota import QuotaExceeded
from gateway.http.limits import LimitExceeded, Overloaded
from gateway.http.responses import json_response
from gateway.identity import NotAllowed, NotAuthenticated

Location = Sequence[str | int]

MAX_FAULTS: Final = 100
"""Faults of one request that are collected and reported."""

_SHOWN: Final = 100
"""Characters of a client's input that a message repeats."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a request, in the contract's shape."""

    loc: Location
    msg: str
    type: str


class Invalid(Exception):
    """The request cannot be understood or breaks a rule; holds up to `MAX_FAULTS` faults."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults[:MAX_FAULTS]
        super().__init__("; ".join(fault.msg for fault in self.faults))


class WrongApiKey(Exception):
    """The internal key is not the right one."""


class BadHost(Exception):
    """The `Host` of the request is none."""


class TooLarge(Exception):
    """The request, or what it asks for, exceeds a limit of the service."""


class TooSlow(Exception):
    """The client stopped sending the body that it announced."""


class Encoded(Exception):
    """The body has a content coding, which this service does not decode."""


def misnamed(given: str, error: Exception) -> str:
    """The message for an invalid path or name: the value and the rule that it breaks."""
    return f"Value error, {shortened(given)!r} given: {error}"


def shortened(text: str) -> str:
    """As much of a client's input as a message repeats."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an exception; without `detail`, the exception's own sentence."""

    status: int
    detail: str | Sequence[Fault] | None = None
    headers: Mapping[str, str] | None = None


ErrorTable = Mapping[type[Exception], Answer | Callable[[Any, str], Answer]]
"""Answers by type of exception, subclasses included; a function is called with the exception and
the request's method."""


def _invalid_path(error: storage.InvalidPath, method: str) -> Answer:
    """Nothing can exist at such a path, so reading it is a 404."""
    if method in {"GET", "HEAD"}:
        return Answer(HTTPStatus.NOT_FOUND, "Not Found")
    return Answer(HTTPStatus.UNPROCESSABLE_ENTITY, [Fault(["path"], str(error), "value_error")])


def _of_aiohttp(error: web.HTTPException, _: str) -> Answer:
    allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    detail = _AIOHTTP_DETAILS.get(error.status) or error.reason
    return Answer(HTTPStatus(error.status), detail, allow)


def _limited(error: LimitExceeded, _: str) -> Answer:
    overloaded = isinstance(error, Overloaded)
    status = HTTPStatus.SERVICE_UNAVAILABLE if overloaded else HTTPStatus.TOO_MANY_REQUESTS
    return Answer(status, headers={"Retry-After": str(max(1, ceil(error.retry_after)))})


_AIOHTTP_DETAILS: Final = {
    404: "Not Found",
    405: "Method Not Allowed",
    413: "The body is too long",
}
_ALLOW: Final = {"Allow": "GET, PUT, DELETE"}
_RETRY: Final = {"Retry-After": "2"}

ERRORS: Final[ErrorTable] = {
    Invalid: lambda error, _: Answer(HTTPStatus.UNPROCESSABLE_ENTITY, error.faults),
    NotAuthenticated: lambda error, _: Answer(
        HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": error.challenge}
    ),
    NotAllowed: Answer(HTTPStatus.FORBIDDEN),
    WrongApiKey: Answer(HTTPStatus.UNAUTHORIZED),
    BadHost: Answer(HTTPStatus.BAD_REQUEST),
    TooLarge: Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    QuotaExceeded: Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    Encoded: Answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, headers={"Accept-Encoding": "identity"}),
    TooSlow: Answer(HTTPStatus.REQUEST_TIMEOUT, headers={"Connection": "close"}),
    LimitExceeded: _limited,
    web.RequestPayloadError: Answer(HTTPStatus.BAD_REQUEST, "The body is not what its headers say"),
    web.HTTPException: _of_aiohttp,
    storage.InvalidPath: _invalid_path,
    storage.NotFound: Answer(HTTPStatus.NOT_FOUND, "Not Found"),
    storage.PathConflict: Answer(HTTPStatus.CONFLICT),
    storage.TargetExists: Answer(HTTPStatus.PRECONDITION_FAILED),
    storage.DirectoryNotEmpty: Answer(
        HTTPStatus.METHOD_NOT_ALLOWED, "Cannot rename a non-empty directory", _ALLOW
    ),
    storage.PredefinedDirectory: Answer(
        HTTPStatus.METHOD_NOT_ALLOWED, "Cannot rename a predefined directory", _ALLOW
    ),
    storage.OutOfSpace: Answer(
        HTTPStatus.INSUFFICIENT_STORAGE, "There is not enough space left for this file"
    ),
    storage.ShareUsedUp: Answer(HTTPStatus.TOO_MANY_REQUESTS, headers=_RETRY),
    storage.AccessRefused: Answer(HTTPStatus.FORBIDDEN),
    storage.FileRefused: Answer(HTTPStatus.CONFLICT),
    storage.StorageUnavailable: Answer(
        HTTPStatus.SERVICE_UNAVAILABLE, "The file storage does not answer at the moment", _RETRY
    ),
    AwsError: Answer(HTTPStatus.SERVICE_UNAVAILABLE, "AWS does not answer at the moment", _RETRY),
    DatabaseUnavailable: Answer(
        HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer at the moment", _RETRY
    ),
}
"""Errors of requests in general, and of what every feature works with."""


def response_for(error: Exception, method: str, table: ErrorTable = ERRORS) -> web.Response | None:
    """The answer to a request that failed with `error`; None for an unexpected error."""
    for kind in type(error).__mro__:
        if (answer := table.get(kind)) is not None:
            break
    else:
        return None
    if not isinstance(answer, Answer):
        answer = answer(error, method)
    detail = str(error) if answer.detail is None else answer.detail
    if isinstance(detail, str):
        return detail_response(answer.status, detail, answer.headers)
    faults = [
        {
            "loc": [_harmless(part) if isinstance(part, str) else part for part in fault.loc],
            "msg": _harmless(fault.msg) or "Invalid value",
            "type": fault.type,
        }
        for fault in detail
    ]
    return json_response({"detail": faults}, status=answer.status, headers=answer.headers)


def detail_response(
    status: int, detail: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """`{"detail": "<sentence>"}`; the sentence is never empty."""
    text = _harmless(detail) or HTTPStatus(status).phrase
    return json_response({"detail": text}, status=status, headers=headers)


def _harmless(text: str) -> str:
    """Text that a page can render: without markup, and without what JSON cannot carry."""
    text = text.replace("<", "\\x3c").replace(">", "\\x3e")
    return text.encode("utf-8", "backslashreplace").decode()
