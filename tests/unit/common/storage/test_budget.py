"""Memory stays within its bounds, whatever the number of transfers and users."""

from contextlib import ExitStack

from common.storage.budget import LARGEST, SMALLEST, BoundedCache, ChunkBudget


def test_chunks_shrink_as_transfers_begin_and_grow_as_they_end() -> None:
    budget = ChunkBudget(total=4 * LARGEST)
    assert budget.size == LARGEST
    with ExitStack() as transfers:
        for _ in range(8):
            transfers.enter_context(budget.transfer())
        assert budget.size == LARGEST // 2
        for _ in range(1_000):
            transfers.enter_context(budget.transfer())
        assert budget.size == SMALLEST
    assert budget.size == LARGEST


def test_a_full_cache_forgets_the_oldest_name() -> None:
    cache = BoundedCache(2)
    for name in "abc":
        cache.add(name)
    assert [name in cache for name in "abc"] == [False, True, True]
