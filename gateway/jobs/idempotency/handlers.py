"""Answers to requests that may carry an `Idempotency-Key`."""

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web

from common.runtime.computation import compute_in_thread
from gateway.http.body import is_small
from gateway.http.errors import Answer, ErrorTable, Fault, Invalid
from gateway.http.fields import MAX_INTEGER
from gateway.http.keys import PARSED_JSON, USER
from gateway.http.responses import json_bytes, json_response
from gateway.jobs.errors import KeyBusy, KeyUsed
from gateway.jobs.idempotency.claims import Claim, IdempotencyKeys, Stored
from gateway.metrics import IDEMPOTENT_REPLAYS

IDEMPOTENCY: Final = web.AppKey("idempotency", IdempotencyKeys)

ERRORS: Final[ErrorTable] = {
    KeyUsed: Answer(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        [
            Fault(
                ["header", "idempotency-key"],
                "Value error, this key was sent with another request",
                "value_error",
            )
        ],
    ),
    KeyBusy: Answer(
        HTTPStatus.CONFLICT,
        "The first request with this key is still under way",
        {"Retry-After": "1"},
    ),
}

_REPLAYED: Final = {"Idempotent-Replayed": "true"}


async def created(
    request: web.Request,
    work: Callable[[Claim | None], Awaitable[Any]],
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """201 with what `work` returns, and these headers.

    Under the request's key, `work` is done once: it has to keep its result by `keep_answers`, in
    the transaction that makes it. Raises `KeyUsed` and `KeyBusy`.
    """
    status = HTTPStatus.CREATED
    key = request["headers"].get("key")
    if key is None:
        return json_response(await work(None), status=status, headers=headers)
    keys = request.app[IDEMPOTENCY]
    fingerprint = await _fingerprint(request)
    claim = await keys.claim(
        request[USER].id, key, fingerprint, status=status, headers=headers or {}
    )
    if isinstance(claim, Stored):
        IDEMPOTENT_REPLAYS.inc()
        return json_bytes(claim.body, status=claim.status, headers={**claim.headers, **_REPLAYED})
    async with keys.held(claim):
        return json_response(await work(claim), status=status, headers=headers)


async def _fingerprint(request: web.Request) -> str:
    """Equal for requests of the same method, path and body; a slash at the end does not count."""
    place = f"{request.method} {request.path.rstrip('/')}\n".encode("utf-8", "surrogateescape")
    body = request[PARSED_JSON]
    text = _canonical(body) if is_small(request) else await compute_in_thread(_canonical, body)
    return sha256(place + text).hexdigest()


def _canonical(body: Any) -> bytes:
    """The same bytes for equal JSON. Raises `Invalid` for what is nested too deeply."""
    try:
        return orjson.dumps(_with_whole_numbers(body), option=orjson.OPT_SORT_KEYS)
    except (RecursionError, orjson.JSONEncodeError) as error:
        fault = Fault(["body"], "Value error, nested too deeply", "value_error")
        raise Invalid(fault) from error


def _with_whole_numbers(node: Any) -> Any:
    """The same JSON with `2.0` written as `2`."""
    if isinstance(node, dict):
        return {key: _with_whole_numbers(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_whole_numbers(item) for item in node]
    if isinstance(node, float) and node.is_integer() and abs(node) <= MAX_INTEGER:
        return int(node)
    return node
