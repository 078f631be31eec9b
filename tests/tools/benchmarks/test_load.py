"""The load generator, against a real server."""

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from benchmarks.load import Outcome, Plan, UnexpectedAnswer, drive
from benchmarks.messages import Caller
from benchmarks.wrk import parse
from deploy.sandbox.ports import free_port

Serve = Callable[[int], Plan]


@pytest.fixture
def seen() -> Counter[str]:
    return Counter()


@pytest.fixture
async def port(seen: Counter[str]) -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.StreamResponse:
        seen[request.path] += 1
        if request.path == "/wrong":
            return web.Response(status=500, text="it is broken")
        if request.path == "/stream":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"in pieces")
            await response.write_eof()
            return response
        return web.Response(text=request.path)

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield port
    await runner.cleanup()


def plan_of(port: int, *targets: str, **changes: object) -> Plan:
    caller = Caller(host="127.0.0.1", port=port)
    requests = [caller.message("GET", target) for target in targets]
    usual = {"host": "127.0.0.1", "port": port, "connections": 3, "seconds": 0.1}
    return Plan(**{**usual, "requests": requests, **changes})


async def test_every_request_that_is_sent_is_counted(port: int, seen: Counter[str]) -> None:
    outcome = await drive(plan_of(port, "/a", "/b", "/stream"))
    assert outcome.count == seen.total() > 0
    assert len(outcome.latencies) == outcome.count
    assert outcome.seconds > 0
    assert max(seen.values()) - min(seen[path] for path in ("/a", "/b", "/stream")) <= 1


async def test_numbers_are_never_repeated(port: int, seen: Counter[str]) -> None:
    await drive(plan_of(port, "/@@@@@@@@@@"), first_number=41)
    assert set(seen.values()) == {1}
    assert "/0000000042" in seen


async def test_an_unexpected_status_ends_the_run_and_shows_the_answer(port: int) -> None:
    with pytest.raises(UnexpectedAnswer, match=r"status 500 instead of 200.*it is broken"):
        await drive(plan_of(port, "/a", "/wrong"))


async def test_a_rate_paces_the_requests_and_keeps_the_answers(port: int) -> None:
    outcome = await drive(plan_of(port, "/a", rate=50.0, keep=True, seconds=0.2))
    assert 1 <= outcome.count <= 11
    assert {text for _, text in outcome.kept} == {"/a"}


def test_a_plan_survives_the_way_to_its_process() -> None:
    plan = plan_of(1, "/a", rate=2.0, keep=True, status=201)
    assert Plan.from_json(plan.to_json()) == plan


WRK = """Running 3s test @ http://127.0.0.1:8000/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.10ms    1.00ms  20.00ms   90.00%
    Req/Sec    15.00k     1.00k   17.00k    70.00%
  45123 requests in 3.01s, 6.50MB read
Requests/sec:  14991.03
Transfer/sec:      2.16MB
"""


def test_what_wrk_prints_is_understood() -> None:
    assert parse(WRK) == Outcome(count=45_123, seconds=3.01)


@pytest.mark.parametrize(
    "line", ["  Non-2xx or 3xx responses: 12", "  Socket errors: connect 0, read 3, write 0"]
)
def test_failures_that_wrk_saw_are_not_counted_as_answers(line: str) -> None:
    with pytest.raises(UnexpectedAnswer):
        parse(f"{WRK}{line}\n")
