"""Admission to expensive work: shares, turns, waits, loans, and cancellation in every state."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from gateway.http.budgets import Budget
from gateway.http.limits import Caller, LimitExceeded, Overloaded, user_caller
from gateway.http.shares import Shares, Usage

ALICE, BOB, CAROL = CALLERS = [user_caller(name) for name in ("alice", "bob", "carol")]
NOTHING = Usage(in_use=0, lent=0, waiting=0, refused=0)


class ClientGone(Exception):
    """A wait for a client ends in an error."""


class ManualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock moves only when a test moves it."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def turn(self) -> None:
        self.call_soon(self.stop)
        self.run_forever()

    def settle(self, *, after: float = 0.0) -> None:
        self.now += after
        for _ in range(30):
            self.turn()


class Work:
    """One request that follows orders: release, lend, return or fail."""

    def __init__(self, loop: ManualLoop, shares: Shares, caller: Caller) -> None:
        self.caller = caller
        self.state = "new"
        self._loop = loop
        self._orders = asyncio.Queue[str]()
        self.task = loop.create_task(self._run(shares))

    def __call__(self, order: str, *, settle: bool = True) -> None:
        self._orders.put_nowait(order)
        if settle:
            self._loop.settle()

    async def _run(self, shares: Shares) -> None:
        self.state = "waiting"
        try:
            async with shares.slot("listing", self.caller) as slot:
                self.state = "holds"
                while await self._orders.get() == "lend":
                    async with slot.lent():
                        self.state = "lent"
                        self._check(await self._orders.get())
                        self.state = "returning"
                    self.state = "holds"
                self.state = "done"
        except Overloaded:
            self.state = "overloaded"
        except LimitExceeded:
            self.state = "refused"
        except (ClientGone, asyncio.CancelledError):
            self.state = "gone"

    @staticmethod
    def _check(order: str) -> None:
        if order == "fail":
            raise ClientGone


class Stage:
    """Shares of one kind on a loop of their own."""

    def __init__(self, **limits: float) -> None:
        budget = {"slots": 2, "per_caller": 2, "waiting": 300, "longest_wait": 30, "lend_after": 1}
        self.budget = Budget(**{**budget, **limits})
        self.loop = ManualLoop()
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, fault: self.faults.append(fault))
        self.shares = Shares({"listing": self.budget})
        self.works: list[Work] = []

    def start(self, *callers: Caller, settle: bool = True) -> list[Work]:
        started = [Work(self.loop, self.shares, caller) for caller in callers]
        self.works += started
        if settle:
            self.loop.settle()
        return started

    def in_state(self, *states: str, among: list[Work] | None = None) -> list[Work]:
        return [work for work in (self.works if among is None else among) if work.state in states]

    @property
    def usage(self) -> Usage:
        return self.shares.usage()["listing"]

    def close(self) -> None:
        """End what still runs; no slot may be lost, no state left over."""
        try:
            self._end_works()
            refused = self.usage.refused
            assert self.usage == Usage(in_use=0, lent=0, waiting=0, refused=refused)
            slots = self.budget.slots
            others = self.start(*(user_caller(str(number)) for number in range(slots + 1)))
            assert states(others[:slots]) == ["holds"] * slots
            assert others[slots].state != "holds"
            self._end_works()
            pool = self.shares._pools["listing"]
            assert not any((pool._begun, pool._active, pool._starting, pool._returning, pool._idle))
            assert not pool._starting.is_ready
            assert not self.faults
        finally:
            self.loop.close()

    def _end_works(self) -> None:
        for work in self.works:
            work.task.cancel()
        self.loop.settle()
        assert all(work.task.done() for work in self.works)


MakeStage = Callable[..., Stage]


@pytest.fixture
def stage_with() -> Iterator[MakeStage]:
    """Makes stages with the given limits; at the end of the test nothing may be left on them."""
    stages: list[Stage] = []

    def make(**limits: float) -> Stage:
        stages.append(Stage(**limits))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


@pytest.fixture
def stage(stage_with: MakeStage) -> Stage:
    return stage_with()


@pytest.fixture
def one_slot(stage_with: MakeStage) -> Stage:
    return stage_with(slots=1)


def states(works: list[Work]) -> list[str]:
    return [work.state for work in works]


def test_a_caller_gets_its_share_and_others_get_the_rest(stage: Stage) -> None:
    assert states(stage.start(ALICE, BOB, CAROL)) == ["holds", "holds", "waiting"]
    assert stage.usage == Usage(in_use=2, lent=0, waiting=1, refused=0)


def test_a_free_slot_does_not_go_to_a_caller_whose_share_is_used_up(
    stage_with: MakeStage,
) -> None:
    stage = stage_with(slots=3, per_caller=1)
    first, second, others = stage.start(ALICE, ALICE, BOB)
    assert states([first, second, others]) == ["holds", "waiting", "holds"]
    first("release")
    assert second.state == "holds"


def test_hundreds_of_waiters_of_one_caller_delay_another_by_one_turn(
    stage_with: MakeStage,
) -> None:
    stage = stage_with(slots=4, per_caller=4)
    greedy = stage.start(*[ALICE] * 300)
    (other,) = stage.start(BOB)
    greedy[0]("release")
    greedy[1]("release")
    assert other.state == "holds"
    assert stage.usage.waiting == 295


def test_one_caller_is_served_in_the_order_of_its_requests(stage: Stage) -> None:
    works = stage.start(*[ALICE] * 5)
    for position in range(3):
        works[position]("release")
        assert states(works[position + 1 : position + 4])[:2] == ["holds", "holds"]
        assert set(states(works[position + 3 :])) <= {"waiting"}


@given(
    asked=st.lists(st.sampled_from(CALLERS), min_size=10, max_size=40),
    releases=st.lists(st.integers(0, 2), min_size=40, max_size=40),
)
@settings(max_examples=50)
def test_while_a_caller_waits_no_other_is_served_twice(
    asked: list[Caller], releases: list[int]
) -> None:
    with closing(Stage(slots=3, per_caller=3)) as stage:
        stage.start(*asked)
        served_meanwhile = {caller: Counter[Caller]() for caller in CALLERS}
        for release in releases[: len(asked)]:
            waiting, holding = stage.in_state("waiting"), stage.in_state("holds")
            holding[release % len(holding)]("release")
            for served in stage.in_state("holds", among=waiting):
                served_meanwhile[served.caller].clear()
                for other in {work.caller for work in waiting} - {served.caller}:
                    served_meanwhile[other][served.caller] += 1
                    assert served_meanwhile[other][served.caller] == 1


def test_beyond_its_waiting_room_a_caller_is_refused_and_others_are_not(
    stage_with: MakeStage,
) -> None:
    stage = stage_with(waiting=2)
    works = stage.start(*[ALICE] * 5, BOB)
    assert states(works) == ["holds", "holds", "waiting", "waiting", "refused", "waiting"]
    assert stage.usage.refused == 1


def test_without_a_waiting_room_nobody_waits(stage_with: MakeStage) -> None:
    stage = stage_with(waiting=0)
    assert states(stage.start(ALICE, BOB, CAROL)) == ["holds", "holds", "overloaded"]


def test_without_a_waiting_room_a_caller_with_slots_of_its_own_is_refused(
    stage_with: MakeStage,
) -> None:
    stage = stage_with(waiting=0, per_caller=1)
    assert states(stage.start(ALICE, ALICE, BOB, CAROL)) == [
        "holds",
        "refused",
        "holds",
        "overloaded",
    ]


async def test_a_refusal_names_the_limit_and_when_to_retry() -> None:
    shares = Shares({"zip": Budget(slots=1, per_caller=1, waiting=0, longest_wait=1.0)})
    async with shares.slot("zip", ALICE):
        with pytest.raises(LimitExceeded) as caught:
            await shares.slot("zip", ALICE).__aenter__()
    assert str(caught.value) == "Limit exceeded: 1 at once (zip)"
    assert caught.value.retry_after > 0
    assert type(caught.value) is LimitExceeded


def test_a_wait_ends_and_says_whether_the_caller_or_others_hold_the_slots(stage: Stage) -> None:
    *_, own, others = stage.start(ALICE, ALICE, ALICE, BOB)
    stage.loop.settle(after=29.0)
    assert states([own, others]) == ["waiting", "waiting"]
    stage.loop.settle(after=1.0)
    assert states([own, others]) == ["refused", "overloaded"]
    assert stage.usage == Usage(in_use=2, lent=0, waiting=0, refused=2)


def test_a_grant_in_the_moment_in_which_the_wait_ends_holds(stage: Stage) -> None:
    holder, _, waiter = stage.start(ALICE, ALICE, BOB)
    holder("release", settle=False)
    stage.loop.settle(after=30.0)
    assert waiter.state == "holds"


def test_instances_and_kinds_do_not_touch_each_other() -> None:
    budget = Budget(slots=1, per_caller=1, waiting=0, longest_wait=1.0)
    users, internal = Shares({"listing": budget, "zip": budget}), Shares({"listing": budget})

    async def use_all() -> None:
        async with (
            users.slot("listing", ALICE),
            users.slot("zip", ALICE),
            internal.slot("listing", ALICE),
        ):
            assert users.usage()["zip"].in_use == 1

    asyncio.run(use_all())
    assert users.usage() == {"listing": NOTHING, "zip": NOTHING}


@pytest.mark.parametrize("cancelled_first", [True, False])
def test_a_waiter_cancelled_in_the_moment_of_its_grant_passes_the_slot_on(
    stage: Stage, cancelled_first: bool
) -> None:
    holder, _, waiter, following = stage.start(ALICE, ALICE, BOB, CAROL)
    if cancelled_first:
        waiter.task.cancel()
    holder("release", settle=False)
    stage.loop.turn()
    waiter.task.cancel()
    stage.loop.settle()
    assert states([waiter, following]) == ["gone", "holds"]


class TestLending:
    def test_the_slot_of_a_client_that_stands_still_goes_to_another(self, one_slot: Stage) -> None:
        slow, other = one_slot.start(ALICE, BOB)
        slow("lend")
        assert other.state == "waiting"
        one_slot.loop.settle(after=1.0)
        assert other.state == "holds"
        assert one_slot.usage == Usage(in_use=1, lent=1, waiting=0, refused=0)
        slow("return")
        assert slow.state == "returning"
        other("release")
        assert slow.state == "holds"

    def test_the_slot_of_a_client_that_moves_stays_with_it(self, one_slot: Stage) -> None:
        quick, other = one_slot.start(ALICE, BOB)
        for _ in range(10):
            quick("lend")
            one_slot.loop.settle(after=0.9)
            quick("return")
            assert states([quick, other]) == ["holds", "waiting"]

    def test_a_client_that_stood_still_before_anybody_waited_lends_at_once(
        self, one_slot: Stage
    ) -> None:
        (slow,) = one_slot.start(ALICE)
        slow("lend")
        one_slot.loop.settle(after=5.0)
        assert one_slot.usage == Usage(in_use=1, lent=1, waiting=0, refused=0)
        assert states(one_slot.start(BOB)) == ["holds"]

    def test_a_lent_slot_that_is_free_again_is_taken_back_without_a_wait(
        self, one_slot: Stage
    ) -> None:
        slow, other = one_slot.start(ALICE, BOB)
        slow("lend")
        one_slot.loop.settle(after=1.0)
        other("release")
        slow("return")
        assert slow.state == "holds"

    def test_a_lent_slot_still_counts_towards_the_share_of_its_caller(
        self, stage_with: MakeStage
    ) -> None:
        stage = stage_with(slots=1, per_caller=1)
        slow, own = stage.start(ALICE, ALICE)
        slow("lend")
        stage.loop.settle(after=5.0)
        assert own.state == "waiting"
        slow("fail")
        assert own.state == "holds"

    def test_a_caller_may_begin_more_than_it_uses_while_clients_stand_still(
        self, stage_with: MakeStage
    ) -> None:
        stage = stage_with(slots=3, per_caller=1, begun_per_caller=3)
        works = stage.start(*[ALICE] * 4)
        assert states(works) == ["holds", "waiting", "waiting", "waiting"]
        for work in works[:2]:
            work("lend")
            stage.loop.settle(after=1.0)
        assert states(works) == ["lent", "lent", "holds", "waiting"]
        works[0]("return")
        assert works[0].state == "returning"  # though two slots are free
        works[2]("release")
        assert states(works) == ["holds", "lent", "done", "waiting"]

    def test_callers_whose_work_is_under_way_take_turns_as_well(self, one_slot: Stage) -> None:
        slow = []
        for caller in (ALICE, ALICE, BOB):
            slow += one_slot.start(caller)
            slow[-1]("lend")
            one_slot.loop.settle(after=1.0)
        (holder,) = one_slot.start(CAROL)
        for work in slow:
            work("return")
        holder("release")
        slow[0]("release")
        assert states(slow) == ["done", "returning", "holds"]

    def test_a_caller_whose_lent_slot_ends_is_next_for_another_lent_one(
        self, stage_with: MakeStage
    ) -> None:
        stage = stage_with(slots=1, per_caller=1)
        first, other, second = stage.start(ALICE, BOB, ALICE)
        first("lend")
        stage.loop.settle(after=1.0)
        other("lend")
        stage.loop.settle(after=1.0)
        assert states([other, second]) == ["lent", "waiting"]
        first("fail")
        stage.loop.settle(after=1.0)
        assert second.state == "holds"

    def test_work_under_way_returns_before_others_start_but_never_twice_in_a_row(
        self, one_slot: Stage
    ) -> None:
        slow = []
        for caller in (ALICE, BOB):
            slow += one_slot.start(caller)
            slow[-1]("lend")
            one_slot.loop.settle(after=1.0)
        (holder,) = one_slot.start(user_caller("dan"))
        waiting = one_slot.start(CAROL, CAROL)
        for work in slow:
            work("return")
        served = []
        while one_slot.in_state("waiting", "returning"):
            before = one_slot.in_state("waiting", "returning")
            holder("release")
            (holder,) = (work for work in before if work.state == "holds")
            served.append(holder)
        assert served == [slow[0], waiting[0], slow[1], waiting[1]]

    @pytest.mark.parametrize("ending", ["fail", "cancel"])
    @pytest.mark.parametrize("taken", [True, False])
    def test_work_that_ends_during_a_loan_does_not_wait_for_its_slot(
        self, one_slot: Stage, ending: str, taken: bool
    ) -> None:
        slow, other = one_slot.start(ALICE, BOB)
        slow("lend")
        one_slot.loop.settle(after=1.0 if taken else 0.0)
        if ending == "fail":
            slow("fail")
        else:
            slow.task.cancel()
            one_slot.loop.settle()
        assert states([slow, other]) == ["gone", "holds"]
        assert one_slot.usage == Usage(in_use=1, lent=0, waiting=0, refused=0)

    @pytest.mark.parametrize("already_granted", [True, False])
    def test_a_cancelled_return_passes_the_slot_on(
        self, one_slot: Stage, already_granted: bool
    ) -> None:
        slow, other, following = one_slot.start(ALICE, BOB, CAROL)
        slow("lend")
        one_slot.loop.settle(after=1.0)
        slow("return")
        if already_granted:
            other("release", settle=False)
            one_slot.loop.turn()
        slow.task.cancel()
        one_slot.loop.settle()
        other("release")
        assert states([slow, following]) == ["gone", "holds"]


class AnyOrder(RuleBasedStateMachine):
    """Requests, loans, releases, failures, cancellations and time in any order.

    Only the rule `settle` lets the loop run for long, so that events meet in one turn of it.
    """

    used = 2
    begun = 2

    def __init__(self) -> None:
        super().__init__()
        limits = {"per_caller": self.used, "begun_per_caller": self.begun}
        self.stage = Stage(slots=3, waiting=3, longest_wait=20.0, **limits)

    @rule(caller=st.sampled_from(CALLERS), count=st.integers(1, 4))
    def start(self, caller: Caller, count: int) -> None:
        self.stage.start(*[caller] * count, settle=False)

    @precondition(lambda self: self.unfinished())
    @rule(
        data=st.data(),
        orders=st.lists(
            st.sampled_from(["release", "lend", "return", "fail", "cancel"]), min_size=1, max_size=3
        ),
    )
    def order(self, data: st.DataObject, orders: list[str]) -> None:
        for order in orders:
            work = data.draw(st.sampled_from(self.unfinished()))
            if order == "cancel":
                work.task.cancel()
            else:
                work(order, settle=False)

    @rule()
    def turn(self) -> None:
        self.stage.loop.turn()
        self.check_limits()

    @rule(seconds=st.sampled_from([0.0, 1.0, 19.0, 20.0]))
    def settle(self, seconds: float) -> None:
        self.stage.loop.settle(after=seconds)
        self.check_limits()
        before: list[str] = []
        while before != states(self.stage.works):
            before = states(self.stage.works)
            self.stage.loop.settle(after=1.0)  # gives away slots of clients that stand still
            self.check_limits()
        opened, used = self.opened(), self.in_use()
        waiting, returning = (self.stage.in_state(state) for state in ("waiting", "returning"))
        served = [work for work in waiting if opened[work.caller] < self.begun] + returning
        if any(used[work.caller] < self.used for work in served):
            assert used.total() == 3

    def unfinished(self) -> list[Work]:
        return [work for work in self.stage.works if not work.task.done()]

    def opened(self) -> Counter[Caller]:
        return Counter(work.caller for work in self.stage.in_state("holds", "lent", "returning"))

    def in_use(self) -> Counter[Caller]:
        return Counter(work.caller for work in self.stage.in_state("holds"))

    def check_limits(self) -> None:
        assert self.in_use().total() <= 3
        assert all(count <= self.used for count in self.in_use().values())
        assert all(count <= self.begun for count in self.opened().values())
        assert self.stage.usage.in_use <= 3

    def teardown(self) -> None:
        self.stage.close()


class AnyOrderWithMoreBegunThanUsed(AnyOrder):
    used = 1
    begun = 3


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=40)
TestMoreBegunThanUsed = AnyOrderWithMoreBegunThanUsed.TestCase
TestMoreBegunThanUsed.settings = TestAnyOrder.settings
