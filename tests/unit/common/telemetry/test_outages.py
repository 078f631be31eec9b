"""Log lines about a database that is away."""

import asyncio
import itertools
from types import SimpleNamespace

import pytest
import structlog

from common.telemetry import logs
from common.telemetry import outages as module
from common.telemetry.outages import OutageLog
from devtools.waiting import eventually
from tests.support.clock import Clock


@pytest.fixture
def _within_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the event loop's timer ends a period, however long a test stands still in one."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=Clock()))


@pytest.mark.usefixtures("_within_a_period")
async def test_the_first_failure_is_logged_at_once_and_later_ones_are_counted() -> None:
    outages = OutageLog(0.05)
    with structlog.testing.capture_logs() as lines:
        outages.warn("tick.postponed", tick="a", reason="refused")
        assert lines == [
            {"event": "tick.postponed", "tick": "a", "reason": "refused", "log_level": "warning"}
        ]
        for number in range(100):
            outages.warn("claim.postponed", reason=f"refused {number}")
        assert len(lines) == 1
        await eventually(lambda: len(lines) == 2)
    assert lines[1] == {
        "event": "claim.postponed", "reason": "refused 99", "count": 100, "log_level": "warning",
    }  # fmt: skip


async def test_lines_are_a_period_apart_however_many_tasks_fail() -> None:
    period, clock = 0.2, asyncio.get_running_loop().time
    outages = OutageLog(period)
    times: list[float] = []

    async def fail(until: float) -> int:
        count = 0
        while clock() < until:
            outages.warn("settlement.postponed")
            count += 1
            await asyncio.sleep(0.001)
        return count

    def note(_: object, __: str, event: dict[str, object]) -> dict[str, object]:
        times.append(clock())
        return event

    with structlog.testing.capture_logs(processors=[note]) as lines:
        until = clock() + 5 * period
        counts = await asyncio.gather(*(fail(until) for _ in range(5)))
        await eventually(lambda: sum(line.get("count", 1) for line in lines) == sum(counts))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) > 0.9 * period


@pytest.mark.usefixtures("_within_a_period")
async def test_a_line_that_summarises_names_no_request() -> None:
    outages = OutageLog(0.05)

    async def fail(request_id: str) -> None:
        logs.bind(request_id=request_id)
        outages.warn("request.refused")

    bound: list[object] = []

    def note(_: object, __: str, event: dict[str, object]) -> dict[str, object]:
        bound.append(logs._bound.get().get("request_id"))
        return event

    with structlog.testing.capture_logs(processors=[note]) as lines:
        await asyncio.gather(*(fail(name) for name in "abc"))
        await eventually(lambda: len(lines) == 2)
    assert bound == ["a", None]


async def test_a_later_outage_is_logged_at_once() -> None:
    outages = OutageLog(0.05)
    with structlog.testing.capture_logs() as lines:
        outages.warn("heartbeat.missed")
        await asyncio.sleep(0.1)
        outages.warn("heartbeat.missed")
    assert [line.get("count", 1) for line in lines] == [1, 1]
