"""A circuit breaker whose peer answers."""

from collections.abc import AsyncIterator

import pytest

from common.outbox.breaker import CircuitBreaker
from common.runtime.claim_loop import WorkSignal


async def is_alive() -> bool:
    return True


@pytest.fixture
async def breaker() -> AsyncIterator[CircuitBreaker]:
    breaker = CircuitBreaker("peer", probe=is_alive, signal=WorkSignal(), longest_pause=0.05)
    async with breaker.probing():
        yield breaker
