"""The load generator, a process of its own: `python -m benchmarks.load` (plan in, outcome out).

Keep-alive connections send requests that were made beforehand, each its next one when its answer
is whole, or all together at a given rate. Any answer with another status than the one that is
expected ends the run.
"""

import asyncio
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle
from typing import Any, Final, cast

import orjson
import uvloop

from benchmarks.answers import AnswerReader
from benchmarks.messages import COUNTER

_TICK: Final = 0.001
_LONGEST_ANSWER: Final = 30.0
_SHOWN: Final = 500


class UnexpectedAnswer(Exception):
    """The server answered something else than what is measured."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to send. `rate` (per second) paces the requests; without it each waits for the last
    one's answer. `keep` keeps the answers' bodies, with the moment at which they were whole."""

    host: str
    port: int
    requests: list[bytes]
    status: int = 200
    connections: int = 32
    seconds: float = 3.0
    rate: float | None = None
    keep: bool = False

    def to_json(self) -> bytes:
        shown = {**asdict(self), "requests": [text.decode("latin-1") for text in self.requests]}
        return orjson.dumps(shown)

    @classmethod
    def from_json(cls, text: bytes) -> "Plan":
        found: dict[str, Any] = orjson.loads(text)
        requests = [item.encode("latin-1") for item in found.pop("requests")]
        return cls(**found, requests=requests)


@dataclass(kw_only=True)
class Outcome:
    """What came of it. Times in seconds; `kept` holds moments of the monotonic clock."""

    count: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    kept: list[tuple[float, str]] = field(default_factory=list)


class _Lane(asyncio.Protocol):
    """One connection; one request under way at a time."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._reader = AnswerReader(keep_bodies=True)
        self._transport: asyncio.WriteTransport | None = None
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def send(self, request: bytes, now: float) -> None:
        assert self._transport is not None
        self._began = now
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            for status, body in self._reader.feed(data):
                self._run.answered(self, status, body, self._began)
        except Exception as error:  # noqa: BLE001 - the run ends with it
            self._run.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.fail(exc or ConnectionError("the server closed a connection"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _itself(lane: _Lane) -> _Lane:
    return lane


class _Run:
    """All lanes together, until the time is over and the last answer is in."""

    def __init__(self, plan: Plan, first_number: int) -> None:
        self.outcome = Outcome()
        self._plan = plan
        self._requests = cycle([request.split(COUNTER) for request in plan.requests])
        self._number = first_number
        self._began = self._ends = 0.0
        self._under_way = self._sent = 0
        self._idle: deque[_Lane] = deque()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def drive(self) -> Outcome:
        loop = asyncio.get_running_loop()
        plan = self._plan
        lanes = [_Lane(self) for _ in range(plan.connections)]
        for lane in lanes:
            await loop.create_connection(partial(_itself, lane), plan.host, plan.port)
        self._began = time.monotonic()
        self._ends = self._began + plan.seconds
        if plan.rate is None:
            for lane in lanes:
                self._send(lane, self._began)
        else:
            self._idle.extend(lanes)
            self._send_due()
        try:
            await asyncio.wait_for(self._over, plan.seconds + _LONGEST_ANSWER)
        except TimeoutError:
            sentence = f"{self._under_way} of {self._sent} requests were never answered"
            raise UnexpectedAnswer(sentence) from None
        finally:
            self._over.cancel()
            for lane in lanes:
                lane.close()
        return self.outcome

    def _next(self) -> bytes:
        parts = next(self._requests)
        if len(parts) == 1:
            return parts[0]
        self._number += 1
        return f"{self._number:010d}".encode().join(parts)

    def _send(self, lane: _Lane, now: float) -> None:
        self._under_way += 1
        self._sent += 1
        lane.send(self._next(), now)

    def _send_due(self) -> None:
        now = time.monotonic()
        assert self._plan.rate is not None
        if now >= self._ends:
            self._finish_if_quiet(now)
            return
        due = int((now - self._began) * self._plan.rate) + 1 - self._sent
        while due > 0 and self._idle:
            self._send(self._idle.popleft(), now)
            due -= 1
        asyncio.get_running_loop().call_later(_TICK, self._send_due)

    def answered(self, lane: _Lane, status: int, body: bytes, began: float) -> None:
        now = time.monotonic()
        if status != self._plan.status:
            raise UnexpectedAnswer(
                f"status {status} instead of {self._plan.status}: {body[:_SHOWN]!r}"
            )
        outcome = self.outcome
        outcome.count += 1
        outcome.latencies.append(now - began)
        if self._plan.keep:
            outcome.kept.append((now, body.decode()))
        self._under_way -= 1
        if now >= self._ends:
            self._finish_if_quiet(now)
        elif self._plan.rate is None:
            self._send(lane, now)
        else:
            self._idle.append(lane)

    def _finish_if_quiet(self, now: float) -> None:
        if not self._under_way and not self._over.done():
            self.outcome.seconds = now - self._began
            self._over.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self._over.done():
            self._over.set_exception(error)


async def drive(plan: Plan, *, first_number: int = 0) -> Outcome:
    """Send the load. Raises `UnexpectedAnswer`, `NotHttp`, `OSError`."""
    return await _Run(plan, first_number).drive()


def main() -> None:
    plan = Plan.from_json(sys.stdin.buffer.read())
    # numbers of different runs never meet: one per 100 µs of the clock, far above any rate
    outcome = uvloop.run(drive(plan, first_number=int(time.time() * 10_000) % 10**10))
    sys.stdout.buffer.write(orjson.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
