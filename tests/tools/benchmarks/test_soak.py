"""The soak: every action gets the expected response, and what counts as wrong."""

import asyncio
import gc
import math
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import orjson
import pytest

from benchmarks.environment import Environment
from benchmarks.options import Options
from benchmarks.soak.audit import Audit, wrong_keys
from benchmarks.soak.chaos import Chaos
from benchmarks.soak.client import NO_RESPONSE, Client, Response
from benchmarks.soak.files import LARGE_FILE
from benchmarks.soak.flatness import LIMITS, Point, slope, value_at
from benchmarks.soak.ledger import Ledger, Run
from benchmarks.soak.refusals import Refusals
from benchmarks.soak.report import Findings, problems, render
from benchmarks.soak.samples import Sampler, count_connections, sample_process, sample_tables
from benchmarks.soak.users import User
from common.database.engine import Database
from deploy.sandbox.ports import LOOPBACK
from devtools.database import RawDatabase
from tests.support.records import add_handover, add_mail

HALF_HOUR = [float(at) for at in range(0, 1_800, 5)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    options = Options(folder=tmp_path_factory.mktemp("soak"))
    with Environment(options, "sqlite", None) as environment:
        yield environment


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def client(environment: Environment, ledger: Ledger) -> AsyncIterator[Client]:
    url, headers = f"http://{LOOPBACK}:{environment.gateway_port}", environment.pool.headers("ada")
    async with aiohttp.ClientSession() as session:
        yield Client(session, url, headers, ledger, persistent=False)


def count(ledger: Ledger) -> int:
    return sum(len(kind.latencies) for kind in ledger.requests.values())


async def test_every_action_gets_the_expected_response(client: Client, ledger: Ledger) -> None:
    chance = random.Random(1)
    user = User("ada", client, ledger, chance, rate=1.0, submissions=4.0, lifetime=0.0)
    await user.files.add_inputs()
    for act in user.actions:
        if LARGE_FILE not in user.files.known:
            await user.files.upload_large()
        await user.files.upload()
        before = count(ledger)
        await act()
        assert count(ledger) > before, act
    for why, status, method, path, parts in Refusals(client, user.jobs, chance).possible():
        await client.send(why, method, path, expected=(status,), **parts)
    assert {name: kind.wrong for name, kind in ledger.requests.items() if kind.wrong} == {}


async def test_keys_that_lost_or_doubled_something_are_found(
    client: Client, ledger: Ledger, environment: Environment
) -> None:
    user = User("eve", client, ledger, random.Random(1), 1.0, 4.0, math.inf)
    await user.files.add_inputs()
    while {len(keyed.names) > 1 for keyed in ledger.keyed.values()} != {True, False}:
        await user.retries.submit()
    await user.retries.repeat()
    assert ledger.requests["replay"].wrong == []

    def found() -> set[str]:
        return {line.partition(":")[0] for line in wrong_keys(environment.database, ledger)}

    others = found()  # batches of the other tests, whose ledgers are not this one
    assert all(line.startswith("batch ") for line in others)
    for key, keyed in ledger.keyed.items():
        first, *_ = bodies = keyed.bodies
        number = orjson.loads(first).get("batch_id")
        for wrong in ([first, first + b" "], [first.replace(b'"id":', b'"id":9')]):
            keyed.bodies = wrong
            assert found() == others | {key}
        keyed.bodies = []  # the jobs are there nevertheless
        assert found() == others | {key} | ({f"batch {number} of no answer"} if number else set())
        keyed.bodies, keyed.names = bodies, [*keyed.names, "lost"]
        assert found() == others | {key}
        keyed.names.remove("lost")


async def test_an_unexpected_response_is_wrong(client: Client, ledger: Ledger) -> None:
    client.headers = {"Authorization": "Bearer nonsense"}
    await client.send("user", "GET", "/user")
    await client.send("user", "GET", "/user", expected=(401,))
    assert len(ledger.requests["user"].latencies) == 2
    (wrong,) = ledger.requests["user"].wrong
    assert "GET /user: 401" in wrong


async def test_a_persistent_client_repeats_until_there_is_a_response(
    client: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.soak.client._PAUSE", (0.0, 0.0))
    client._persistent = True
    right, client.url = client.url, "http://127.0.0.1:1"
    sending = asyncio.create_task(
        client.send("welcome", "GET", "/", expected=(201,), repeated=(200,))
    )
    while not ledger.requests["welcome"].repeated:
        await asyncio.sleep(0)
    client.url = right
    assert (await sending).status == 200
    assert ledger.requests["welcome"].wrong == []


@pytest.mark.parametrize(
    ("status", "headers", "is_transient"),
    [
        (NO_RESPONSE, {}, True),
        (503, {}, True),
        (409, {"Retry-After": "1"}, True),  # the same key is under way
        (409, {}, False),
        (500, {}, False),
    ],
)
def test_a_response_that_may_change_soon_is_transient(
    status: int, headers: dict[str, str], is_transient: bool
) -> None:
    assert Response(status, headers, b"").is_transient is is_transient


def test_the_slope_is_that_of_the_least_squares_line() -> None:
    line = [(at, 7 + at / 60) for at in HALF_HOUR]
    assert slope(line) * 3_600 == pytest.approx(60)
    zigzag = [(at, y + (-1) ** i) for i, (at, y) in enumerate(line)]
    assert slope(zigzag) == pytest.approx(1 / 60, rel=0.01)
    assert slope([(1.0, 5.0)]) == slope([]) == 0.0
    assert value_at(line, 301.0) == 12.0


@pytest.mark.parametrize(
    ("measure", "line", "is_flat"),
    [
        *(
            ("memory", [(at, 90.0 + at * per_hour / 3_600) for at in HALF_HOUR], is_flat)
            for per_hour, is_flat in ((-50.0, True), (7.0, True), (9.0, False))
        ),
        # transfers release within the minute
        ("memory", [(at, 90.0 + (at / 45 if at % 60 else 0.0)) for at in HALF_HOUR], True),
        ("rows", [(at, min(at, 600.0)) for at in HALF_HOUR], True),  # the first half fills up
        ("rows", [(at, at) for at in HALF_HOUR], False),
    ],
)
def test_a_measure_may_hardly_rise_in_the_second_half(
    measure: str, line: list[Point], is_flat: bool
) -> None:
    assert LIMITS[measure].allows(line) is is_flat


def test_a_sample_counts_what_the_process_holds(tmp_path: Path) -> None:
    gc.collect()  # what earlier tests left open is not closed meanwhile
    before = sample_process(os.getpid())
    with (tmp_path / "held").open("w"):
        assert sample_process(os.getpid())["file handles"] == before["file handles"] + 1
    assert before["memory"] > 1
    assert before["threads"] >= 1


def test_connections_are_read_from_the_metrics() -> None:
    page = """
# TYPE opencloud_database_connections gauge
opencloud_database_connections{state="in_use"} 2.0
opencloud_database_connections{state="idle"} 3.0
opencloud_database_connections_max 10.0
"""
    assert count_connections(page) == 5


async def test_rows_are_counted(database: Database, database_url: str) -> None:
    await add_handover(database)
    await add_mail(database)
    found = await asyncio.to_thread(sample_tables, RawDatabase(database_url))
    assert {table: measures["rows"] for table, measures in found.items()} == {
        "jobs": 2, "job_events": 0, "handovers": 1, "handover_numbers": 0, "emails": 1,
    }  # fmt: skip


def findings(*, with_faults: bool = False) -> Findings:
    """A run in which all is well."""
    ledger = Ledger()
    ledger.requests["job"].latencies.append(0.1)
    if with_faults:
        chaos = Chaos(None, random.Random(1))  # type: ignore[arg-type]
        chaos.injected["the peer hangs"] = 1
        chaos.recoveries["the peer hangs"] = [0.5]
        return Findings(title="", audit=Audit(settled=True), ledger=ledger, chaos=chaos)
    sampler = Sampler([], RawDatabase("sqlite:///none"))
    flat: list[Point] = [(at, 90.0) for at in HALF_HOUR]
    sampler.processes["gateway-0"] |= {"memory": flat, "file handles": flat, "cpu": flat}
    sampler.tables["jobs"]["rows"] = flat
    return Findings(title="", audit=Audit(settled=True), ledger=ledger, sampler=sampler)


@pytest.mark.parametrize("with_faults", [False, True])
def test_a_run_in_which_all_is_well_has_no_problems(with_faults: bool) -> None:
    found = findings(with_faults=with_faults)
    assert problems(found) == []
    assert "nothing is wrong" in render(found)


COMMON_PROBLEMS = [
    "lost: job-1 (still queued)",
    "run twice: job-1 (two copies: [Run(number=1, entry=1, worker='w1')])",
    "without a hand-over: job-1",
    "wrongly refused: job-1",
    "changed after the end: job-1",
    "not cancelled: job-1",
    "keys: key of job-1: not replayed byte for byte",
    "events: ada lacks event 7",
    "without a mail: job-1",
    "mails sent twice: job-1",
    "orphan rows of: job-1",
    f"wrong answers to job: {'; '.join(['GET /jobs: 500'] * 10)}; and 2 more",
    "not settled: something was still under way at the end",
]


@pytest.mark.parametrize(
    ("with_faults", "own"),
    [
        (True, ["not recovered within 30 s: the peer hangs"]),
        (
            False,
            [
                "not flat: gateway-0: memory; jobs: rows",
                "in the logs: gateway: request.failed: KeyError × 2",
                "left behind: a file",
            ],
        ),
    ],
)
def test_every_broken_promise_is_a_problem(with_faults: bool, own: list[str]) -> None:
    found = findings(with_faults=with_faults)
    found.ledger.runs["job-1"] = [Run(1, 1, "w1")]
    found.ledger.requests["job"].wrong += ["GET /jobs: 500"] * 12
    audit = found.audit
    audit.settled = False
    audit.lost, audit.twice = {"job-1": "still queued"}, {"job-1": "two copies"}
    audit.without_handover = audit.wrongly_refused = audit.changed_after_end = ["job-1"]
    audit.missing_mails = audit.duplicate_mails = audit.orphans = ["job-1"]
    audit.not_cancelled, audit.wrong_streams = ["job-1"], ["ada lacks event 7"]
    audit.wrong_keys = ["key of job-1: not replayed byte for byte"]
    audit.log_errors["gateway: request.failed: KeyError"] += 2
    audit.staged = ["a file"]
    if found.chaos:
        found.chaos.recoveries["the peer hangs"].append(math.inf)
    if found.sampler:
        rising = [(at, at) for at in HALF_HOUR]
        found.sampler.processes["gateway-0"]["memory"] = rising
        found.sampler.tables["jobs"]["rows"] = rising
    assert problems(found) == [*COMMON_PROBLEMS, *own]
    shown = render(found)
    assert all(problem in shown for problem in problems(found))
    assert "in the logs: gateway: request.failed: KeyError × 2" in shown
