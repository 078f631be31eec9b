import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from common.outbox.breaker import LABELS, Allowance, BreakerState, CircuitBreaker, Reason
from common.runtime.claim_loop import WorkSignal
from devtools.waiting import eventually

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
NOTHING, ONE, ALL = Allowance.NOTHING, Allowance.ONE, Allowance.ALL


class Peer:
    """Answers probes with `alive`, or fails by `error`; counts them."""

    def __init__(self) -> None:
        self.alive = False
        self.error: Exception | None = None
        self.probes = 0

    async def probe(self) -> bool:
        self.probes += 1
        if self.error:
            raise self.error
        return self.alive


class Signal(WorkSignal):
    """Counts its wake-ups."""

    def __init__(self) -> None:
        super().__init__()
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def signal() -> Signal:
    return Signal()


@pytest.fixture
async def breaker(peer: Peer, signal: Signal) -> AsyncIterator[CircuitBreaker]:
    breaker = CircuitBreaker("peer", probe=peer.probe, signal=signal, longest_pause=0.05)
    async with breaker.probing():
        yield breaker


async def half_open(breaker: CircuitBreaker, peer: Peer, reason: Reason) -> None:
    peer.alive = True
    breaker.refused() if reason is Reason.REFUSED else breaker.unreachable()
    await eventually(lambda: breaker.state is HALF_OPEN)


async def test_a_failed_connection_opens_it_at_once(breaker: CircuitBreaker) -> None:
    assert (breaker.allowance(), breaker.label, breaker.is_reachable) == (ALL, "closed", True)
    breaker.unreachable()
    assert (breaker.allowance(), breaker.label, breaker.is_reachable) == (NOTHING, "open", False)
    assert await breaker.check() == {"ok": False, "gate": "open"}


async def test_only_failures_of_different_items_in_a_row_open_it(breaker: CircuitBreaker) -> None:
    for _ in range(50):
        breaker.failed("poisoned")
    for item in range(20):
        breaker.failed(item)
        if item % 3 == 0:
            breaker.succeeded()
    breaker.succeeded()
    for item in range(4):
        breaker.failed(item)
    assert breaker.state is CLOSED
    breaker.failed(4)
    assert breaker.state is OPEN


async def test_two_items_that_fail_again_and_again_open_it_and_one_alone_never_does(
    breaker: CircuitBreaker,
) -> None:
    for _ in range(20):
        breaker.failed("first")
    assert breaker.state is CLOSED
    breaker.failed("second")
    assert breaker.state is OPEN


async def test_while_open_the_peer_is_probed_until_it_answers(
    breaker: CircuitBreaker, peer: Peer, signal: Signal
) -> None:
    breaker.unreachable()
    await eventually(lambda: peer.probes >= 5)
    peer.error = RuntimeError()
    await eventually(lambda: peer.probes >= 8)
    assert (breaker.allowance(), signal.woken) == (NOTHING, 0)
    peer.error, peer.alive = None, True
    await eventually(lambda: signal.woken)
    assert (breaker.label, breaker.allowance()) == ("half_open", ONE)


async def test_half_open_one_item_goes_and_its_outcome_is_awaited(
    breaker: CircuitBreaker, peer: Peer
) -> None:
    await half_open(breaker, peer, Reason.UNREACHABLE)
    breaker.acquire()
    assert breaker.allowance() is NOTHING
    breaker.release()  # it never went out
    assert breaker.allowance() is ONE
    breaker.acquire()
    peer.alive = False
    breaker.failed("item")
    assert (breaker.state, breaker.allowance()) == (OPEN, NOTHING)
    await half_open(breaker, peer, Reason.UNREACHABLE)
    breaker.acquire()
    breaker.succeeded()
    assert breaker.allowance() is ALL


async def test_after_a_refusal_an_item_goes_now_and_then_and_no_probe(
    breaker: CircuitBreaker, peer: Peer
) -> None:
    for _ in range(3):
        breaker.refused()
        assert (breaker.allowance(), breaker.label) == (NOTHING, "held")
        await eventually(lambda: breaker.label == "trial")
        assert (breaker.allowance(), breaker.is_reachable) == (ONE, False)
        breaker.acquire()
        assert breaker.allowance() is NOTHING
    breaker.succeeded()
    assert (breaker.allowance(), breaker.label, peer.probes) == (ALL, "closed", 0)


async def test_a_refusal_during_a_probe_is_not_undone_by_its_answer(signal: Signal) -> None:
    probed, answer = asyncio.Event(), asyncio.Event()

    async def probe() -> bool:
        probed.set()
        await answer.wait()
        return True

    breaker = CircuitBreaker("peer", probe=probe, signal=signal, longest_pause=0.05)
    async with breaker.probing():
        breaker.unreachable()
        await probed.wait()
        breaker.refused()
        answer.set()
        await eventually(lambda: breaker.state is HALF_OPEN)
    assert breaker.label == "trial"


@pytest.mark.parametrize("reason", Reason)
async def test_closed_because_there_is_nothing_to_send_it_lets_one_item_go_first(
    breaker: CircuitBreaker, peer: Peer, reason: Reason
) -> None:
    breaker.unreachable()
    breaker.nothing_to_send()  # which says nothing while it is open
    assert breaker.state is OPEN
    await half_open(breaker, peer, reason)
    breaker.nothing_to_send()
    assert (breaker.state, breaker.allowance()) == (CLOSED, ONE)
    breaker.acquire()
    assert breaker.allowance() is NOTHING
    breaker.failed("the first")
    assert (breaker.label, breaker.allowance()) == ("open", NOTHING)
    await eventually(lambda: breaker.state is HALF_OPEN)
    breaker.nothing_to_send()
    breaker.acquire()
    breaker.succeeded()
    assert breaker.allowance() is ALL


async def test_a_pause_that_the_peer_asks_for_ends_in_time_or_when_an_item_is_taken(
    breaker: CircuitBreaker, signal: Signal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        now = time.monotonic()
        patch.setattr(time, "monotonic", lambda: now)  # the loop's clock as well
        breaker.failed("one", 0.1)
        assert breaker.allowance() is ALL  # it may concern that item alone
        breaker.failed("another", 0.1)
        assert breaker.allowance() is NOTHING
    await eventually(lambda: signal.woken)
    await eventually(lambda: breaker.allowance() is ALL)
    breaker.failed("another", 60.0)
    assert (breaker.allowance(), signal.woken) == (NOTHING, 1)
    breaker.succeeded()
    assert (breaker.allowance(), signal.woken) == (ALL, 2)


async def test_the_gauge_shows_the_present_state(peer: Peer, signal: Signal) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("state", "State", ["state"], registry=registry)
    breaker = CircuitBreaker("peer", probe=peer.probe, signal=signal, gauge=gauge)

    def shown() -> dict[str, float]:
        return {name: registry.get_sample_value("state", {"state": name}) for name in LABELS}  # type: ignore[misc]

    nothing = dict.fromkeys(("closed", "open", "half_open", "held", "trial"), 0)
    assert shown() == nothing | {"closed": 1}
    breaker.refused()
    assert shown() == nothing | {"held": 1}
    breaker.unreachable()
    assert shown() == nothing | {"open": 1}
