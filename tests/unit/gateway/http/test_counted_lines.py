"""Log lines that are counted instead of repeated."""

import structlog

from common.telemetry import logs
from devtools.waiting import eventually
from gateway.http.counted_lines import CountedLines


async def test_the_first_line_is_written_at_once_and_its_repetitions_are_counted() -> None:
    lines = CountedLines("thing.refused", period=0.3)
    with structlog.testing.capture_logs() as written:
        for number in range(1000):
            lines.write("a", {"address": "a", "number": number})
        lines.write("b", {"address": "b"})
        first = {"event": "thing.refused", "log_level": "info", "address": "a", "number": 0}
        assert written == [first, {"event": "thing.refused", "log_level": "info", "address": "b"}]
        await eventually(lambda: len(written) == 3)
        assert written[2] == {**first, "count": 999}


async def test_after_a_period_without_repetitions_a_line_is_written_at_once() -> None:
    lines = CountedLines("thing.refused", period=0.01)
    with structlog.testing.capture_logs() as written:
        lines.write("a", {})
        await eventually(lambda: not lines._waiting)
        lines.write("a", {})
    assert [line.get("count") for line in written] == [None, None]


async def test_keys_in_great_number_share_a_line() -> None:
    lines = CountedLines("thing.refused", period=0.3)
    with structlog.testing.capture_logs() as written:
        for number in range(10_000):
            lines.write(number, {"address": str(number)})
        assert len(written) == 101
        await eventually(lambda: len(written) == 102)
    assert written[100]["address"] == written[101]["address"] == "several"
    assert written[101]["count"] == 9_899


async def test_a_count_names_no_request() -> None:
    lines, bound = CountedLines("thing.refused", period=0.01), []
    logs.bind(request_id="a")

    def note(_: object, __: str, event: dict[str, object]) -> dict[str, object]:
        bound.append(logs._bound.get().get("request_id"))
        return event

    with structlog.testing.capture_logs(processors=[note]):
        lines.write("a", {})
        lines.write("a", {})
        await eventually(lambda: len(bound) == 2)
    assert bound == ["a", None]
