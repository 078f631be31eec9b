"""Faults that a stand-in produces on request, over real sockets.

A plan is a list of rules, of which the first one that matches a request applies.
"""

import asyncio
import fnmatch
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from aiohttp import web

Act = Callable[[], Awaitable[web.Response]]

KINDS: Final = (
    "delay",  # the right response, `seconds` late
    "drip",  # the right response, one byte every `seconds`
    "hang",  # no response
    "drop_before",  # the connection breaks, nothing was accepted
    "drop_after",  # accepted, then the connection breaks
    "status",  # `status` with `body` and `headers`, nothing was accepted
    "redirect",  # 307 to `location`, nothing was accepted
    "html",  # 200 with a page of HTML, nothing was accepted
    "garbage",  # 200 with invalid JSON
)
_TAKEN: Final = frozenset({"delay", "drip", "hang", "drop_after"})
_PAGE: Final = "<!doctype html><title>Welcome</title><h1>It works!</h1>"


class FaultError(Exception):
    """The description of a fault is invalid; the message is a sentence."""


@dataclass(kw_only=True)
class Rule:
    """A fault, and the requests that it applies to.

    `times=None` means without end; `names` is a shell pattern. `commit` overrides whether the
    request takes effect before the fault, `blocks` whether other requests wait for it.
    """

    fault: str
    on: str = ""
    times: int | None = None
    numbers: list[int] | None = None
    names: str | None = None
    seconds: float = 1.0
    status: int = 503
    body: Any = None
    headers: dict[str, str] | None = None
    location: str = "/elsewhere"
    commit: bool | None = None
    blocks: bool | None = None
    hits: int = 0

    @property
    def commits(self) -> bool:
        return self.fault in _TAKEN if self.commit is None else self.commit

    @property
    def holds_up_others(self) -> bool:
        return self.fault == "delay" if self.blocks is None else self.blocks

    def matches(self, on: str, number: int | None, names: Sequence[str]) -> bool:
        if self.times is not None and self.hits >= self.times:
            return False
        if self.on not in (on, "any"):
            return False
        if self.numbers is not None and number not in self.numbers:
            return False
        pattern = self.names
        return pattern is None or any(fnmatch.fnmatchcase(name, pattern) for name in names)


class FaultPlan:
    """The rules of a stand-in; `places` are the calls that they can apply to."""

    def __init__(self, places: Sequence[str]) -> None:
        self._places = tuple(places)
        self.rules: list[Rule] = []

    def switch(self, body: object, *others: str) -> dict[str, Any]:
        """Apply the body of PUT /_faults, with the keys `rules` and `others`; returns it.

        A missing key changes nothing. Raises `FaultError`.
        """
        allowed = {"rules", *others}
        if not isinstance(body, dict) or set(body) - allowed:
            raise FaultError(f"the body must be an object with some of {sorted(allowed)}")
        if "rules" in body:
            self.replace(body["rules"])
        return body

    def replace(self, described: object) -> None:
        """Replace the rules by those described. Raises `FaultError`."""
        if not isinstance(described, list):
            raise FaultError("'rules' must be a list")
        self.rules = [self._parse(item) for item in described]

    def _parse(self, item: object) -> Rule:
        if not isinstance(item, dict):
            raise FaultError("a rule must be an object")
        known = {field.name for field in fields(Rule)} - {"hits"}
        if unknown := sorted(set(item) - known - {"hits"}):
            raise FaultError(f"unknown keys {unknown}; known are {sorted(known)}")
        if item.get("fault") not in KINDS:
            raise FaultError(f"unknown fault {item.get('fault')!r}; known are {list(KINDS)}")
        rule = Rule(**{**item, "on": item.get("on") or self._places[0], "hits": 0})
        if rule.on not in (*self._places, "any"):
            raise FaultError(f"'on' must be 'any' or one of {list(self._places)}")
        return rule

    def take(self, on: str, *, number: int | None = None, names: Sequence[str] = ()) -> Rule | None:
        """The rule that applies to this request; counts as one of its `times`."""
        for rule in self.rules:
            if rule.matches(on, number, names):
                rule.hits += 1
                return rule
        return None

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(rule) for rule in self.rules]


async def misbehave(request: web.Request, rule: Rule, act: Act) -> web.StreamResponse:
    """Respond to `request` as `rule` demands; `act` takes effect and returns the right response."""
    answer = await act() if rule.commits else web.json_response({"detail": "fault"}, status=503)
    match rule.fault:
        case "delay":
            await asyncio.sleep(rule.seconds)
            return answer
        case "drip":
            return await _drip(request, answer, rule.seconds)
        case "hang":
            return await _hang(request)
        case "drop_before" | "drop_after":
            return _drop(request)
        case "redirect":
            return web.Response(status=307, headers={"Location": rule.location})
        case "html":
            return web.Response(text=_PAGE, content_type="text/html")
        case "garbage":
            return web.Response(text='{"job": {"app"', content_type="application/json")
        case _:
            body = {"detail": f"fault {rule.status}"} if rule.body is None else rule.body
            return web.json_response(body, status=rule.status, headers=rule.headers)


def _drop(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # is not sent: the connection is gone


async def _hang(request: web.Request) -> web.StreamResponse:
    # aiohttp does not notify a handler when its client disconnects
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    return web.Response()


async def _drip(request: web.Request, answer: web.Response, seconds: float) -> web.StreamResponse:
    body = answer.body if isinstance(answer.body, bytes) else b""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(body)
    await response.prepare(request)
    try:
        for position in range(len(body)):
            await response.write(body[position : position + 1])
            await asyncio.sleep(seconds)
    except ConnectionError:
        return response
    await response.write_eof()
    return response
