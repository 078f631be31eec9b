"""Turns between callers that wait."""

from common.runtime.fair_queue import FairQueue


async def test_callers_take_turns_and_each_is_served_in_its_own_order() -> None:
    queue = FairQueue[str, int](lambda _: True)
    for caller, item in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)]:
        queue.push(caller, item)
    served = []
    while queue.is_ready:
        item, _ = queue.pop()
        served.append(item)
        for caller in "abc":
            queue.refresh(caller)
    assert served == [1, 4, 5, 2, 6, 3]


async def test_a_caller_that_may_not_be_served_keeps_nobody_else_waiting() -> None:
    allowed = {"b"}
    queue = FairQueue[str, int](allowed.__contains__)
    queue.push("a", 1)
    assert (queue.is_ready, len(queue), queue.waiting("a")) == (False, 1, 1)
    queue.push("b", 2)
    assert queue.pop()[0] == 2
    allowed.add("a")
    queue.refresh("a")
    assert queue.pop()[0] == 1
    assert not queue


async def test_what_is_removed_is_not_served() -> None:
    queue = FairQueue[str, int](lambda _: True)
    queue.push("a", 1)
    queue.remove("a", 1)
    queue.remove("a", 1)
    assert (bool(queue), queue.is_ready) == (False, False)
