import asyncio
from collections.abc import AsyncIterator

import pytest

from common.outbox.breaker import Gate, Permit, State
from devtools.waiting import eventually


class Peer:
    """Answers probes as told."""

    def __init__(self) -> None:
        self.alive = False
        self.probes = 0

    async def probe(self) -> bool:
        self.probes += 1
        return self.alive


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
async def gate(peer: Peer) -> AsyncIterator[Gate]:
    gate = Gate("peer", probe=peer.probe, longest_pause=0.05)
    gate.start()
    yield gate
    await gate.stop()


async def test_a_closed_gate_lets_everything_through(gate: Gate) -> None:
    assert gate.permit is Permit.ALL


async def test_a_failed_connection_opens_it_at_once(gate: Gate) -> None:
    gate.unreachable()
    assert (gate.state, gate.permit, gate.is_reachable) == (State.OPEN, Permit.NOTHING, False)


async def test_failures_of_different_items_in_a_row_open_it(gate: Gate) -> None:
    for item in range(4):
        gate.failed(item)
    assert gate.state is State.CLOSED
    gate.failed(4)
    assert gate.state is State.OPEN


async def test_one_item_that_fails_again_and_again_does_not_open_it(gate: Gate) -> None:
    for _ in range(50):
        gate.failed("poisoned")
    assert gate.state is State.CLOSED


async def test_a_success_between_failures_keeps_it_closed(gate: Gate) -> None:
    for item in range(20):
        gate.failed(item)
        if item % 3 == 0:
            gate.succeeded()
    assert gate.state is State.CLOSED


async def test_while_open_the_peer_is_probed_until_it_answers(gate: Gate, peer: Peer) -> None:
    woken = asyncio.Event()
    gate.on_change = woken.set
    gate.unreachable()
    await eventually(lambda: peer.probes >= 5)
    assert gate.permit is Permit.NOTHING
    peer.alive = True
    await asyncio.wait_for(woken.wait(), 5)
    assert (gate.state, gate.permit) == (State.HALF_OPEN, Permit.ONE)


async def test_a_probe_that_fails_by_itself_is_repeated(
    gate: Gate, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> bool:
        peer.probes += 1
        raise RuntimeError

    monkeypatch.setattr(gate, "_probe", fail)
    gate.unreachable()
    await eventually(lambda: peer.probes >= 3)
    peer.alive = True
    monkeypatch.setattr(gate, "_probe", peer.probe)
    await eventually(lambda: gate.permit is Permit.ONE)


async def half_open(gate: Gate, peer: Peer) -> None:
    peer.alive = True
    gate.unreachable()
    await eventually(lambda: gate.permit is Permit.ONE)
    gate.trial_started()


async def test_half_open_lets_one_item_through_and_waits_for_its_outcome(
    gate: Gate, peer: Peer
) -> None:
    await half_open(gate, peer)
    assert gate.permit is Permit.NOTHING
    gate.succeeded()
    assert gate.permit is Permit.ALL


async def test_a_trial_that_fails_opens_it_again(gate: Gate, peer: Peer) -> None:
    await half_open(gate, peer)
    peer.alive = False
    gate.failed("item")
    assert gate.state is State.OPEN


async def test_a_trial_that_never_went_out_makes_room_for_the_next(gate: Gate, peer: Peer) -> None:
    await half_open(gate, peer)
    gate.trial_ended()
    assert gate.permit is Permit.ONE


async def test_a_refusal_of_us_holds_everything_but_a_trial_now_and_then(
    gate: Gate, peer: Peer
) -> None:
    for _ in range(3):
        gate.refused()
        assert (gate.permit, gate.is_reachable) == (Permit.NOTHING, False)
        await eventually(lambda: gate.permit is Permit.TRIAL)
        gate.trial_started()
        assert gate.permit is Permit.NOTHING
    gate.succeeded()
    assert gate.permit is Permit.ALL
    assert peer.probes == 0


async def untried(gate: Gate, peer: Peer, state: State) -> None:
    """The gate closes because there is nothing to try."""
    peer.alive = True
    if state is State.TRIAL:
        gate.refused()
    else:
        gate.unreachable()
    await eventually(lambda: gate.state is state)
    gate.nothing_to_try()


@pytest.mark.parametrize("state", [State.HALF_OPEN, State.TRIAL])
async def test_a_trial_that_finds_nothing_closes_it_and_lets_one_item_through_first(
    gate: Gate, peer: Peer, state: State
) -> None:
    await untried(gate, peer, state)
    assert (gate.state, gate.permit) == (State.CLOSED, Permit.ONE)
    gate.trial_started()
    assert gate.permit is Permit.NOTHING
    gate.succeeded()
    assert gate.permit is Permit.ALL


@pytest.mark.parametrize("state", [State.HALF_OPEN, State.TRIAL])
async def test_closed_for_want_of_items_it_opens_when_the_first_one_fails(
    gate: Gate, peer: Peer, state: State
) -> None:
    await untried(gate, peer, state)
    gate.trial_started()
    gate.failed("the first")
    assert (gate.state, gate.permit) == (State.OPEN, Permit.NOTHING)


async def test_a_gate_that_is_open_is_not_closed_for_want_of_items(gate: Gate) -> None:
    gate.unreachable()
    gate.nothing_to_try()
    assert gate.state is State.OPEN


async def test_a_pause_that_the_peer_asks_for_is_kept(gate: Gate) -> None:
    woken = asyncio.Event()
    gate.on_change = woken.set
    gate.failed("one", 0.1)
    gate.failed("another", 0.1)
    assert gate.permit is Permit.NOTHING
    await asyncio.wait_for(woken.wait(), 5)
    await eventually(lambda: gate.permit is Permit.ALL)


async def test_a_pause_asked_for_one_item_holds_up_no_other(gate: Gate) -> None:
    for _ in range(3):
        gate.failed("poisoned", 60.0)
        assert gate.permit is Permit.ALL


async def test_a_pause_ends_when_an_item_is_taken(gate: Gate) -> None:
    woken = asyncio.Event()
    gate.failed("one", 60.0)
    gate.failed("another", 60.0)
    gate.on_change = woken.set
    assert gate.permit is Permit.NOTHING
    gate.succeeded()
    assert (gate.permit, woken.is_set()) == (Permit.ALL, True)
