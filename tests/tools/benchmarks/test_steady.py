"""The steady load: that every kind of request is what it says, and what counts as flat."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from benchmarks.database import TestDatabase
from benchmarks.options import Options
from benchmarks.soak.audit import Verdict
from benchmarks.soak.ledger import Ledger
from benchmarks.stage import Stage, set_up
from benchmarks.steady import flat
from benchmarks.steady.files import MOVIE
from benchmarks.steady.report import Findings, render, troubles
from benchmarks.steady.requests import Client, Kind
from benchmarks.steady.samples import (
    TABLES,
    DatabaseSample,
    ProcessSample,
    TableSample,
    Watch,
    look_at_database,
    read_metrics,
    sample_of,
)
from benchmarks.steady.users import SteadyUser
from common.database.engine import Database
from deploy.sandbox.ports import LOOPBACK
from tests.support.records import add_handover, add_mail

HALF_HOUR = [float(at) for at in range(0, 1_800, 5)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with set_up(Options(folder=tmp_path_factory.mktemp("steady")), "sqlite", None) as stage:
        yield stage


async def test_whatever_users_do_is_answered_as_it_has_to_be(stage: Stage) -> None:
    kinds: defaultdict[str, Kind] = defaultdict(Kind)
    url = f"http://{LOOPBACK}:{stage.gateway_port}"
    async with aiohttp.ClientSession() as session:
        client = Client(session, url, stage.identity.token_of("somebody"), kinds)
        user = SteadyUser("somebody", client, Ledger(), 1, rate=1.0, lifetime=0.0)
        await user.files.add_inputs()
        for act in user.actions:
            if MOVIE not in user.files.known:
                await user.files.upload_large()
            await user.files.upload()
            before = sum(len(kind.latencies) for kind in kinds.values())
            await act()
            assert sum(len(kind.latencies) for kind in kinds.values()) > before, act
    assert not [fault for kind in kinds.values() for fault in kind.faults]


async def test_an_answer_that_is_not_the_expected_one_is_a_fault(stage: Stage) -> None:
    kinds: defaultdict[str, Kind] = defaultdict(Kind)
    async with aiohttp.ClientSession() as session:
        client = Client(session, f"http://{LOOPBACK}:{stage.gateway_port}", "nonsense", kinds)
        await client.send("user", "GET", "/user")
        await client.send("user", "GET", "/user", expected=(401,))
    assert len(kinds["user"].latencies) == 2
    (fault,) = kinds["user"].faults
    assert "GET /user: 401" in fault


def test_the_slope_is_that_of_the_line_with_the_least_squares() -> None:
    line = [(at, 7 + at / 60) for at in HALF_HOUR]
    assert flat.slope(line) * 3_600 == pytest.approx(60)
    assert flat.slope([(at, y + (-1) ** i) for i, (at, y) in enumerate(line)]) == pytest.approx(
        1 / 60, rel=0.01
    )
    assert flat.slope([(1.0, 5.0)]) == flat.slope([]) == 0.0
    assert flat.value_at(line, 301.0) == 12.0


@pytest.mark.parametrize(
    ("per_hour", "is_flat"), [(0.0, True), (-50.0, True), (7.0, True), (9.0, False)]
)
def test_memory_is_flat_when_it_rises_by_less_than_two_mib_in_the_second_half(
    per_hour: float, is_flat: bool
) -> None:
    rising = [(at, 90.0 + at * per_hour / 3_600) for at in HALF_HOUR]
    assert flat.MEMORY.allows(rising) is is_flat


def test_memory_that_transfers_take_and_give_back_is_not_held_against_a_process() -> None:
    restless = [(at, 90.0 + (at / 45 if at % 60 else 0.0)) for at in HALF_HOUR]
    assert flat.slope(restless) * 3_600 > 50
    assert flat.MEMORY.allows(restless)


def test_what_is_filled_in_the_first_half_counts_as_flat() -> None:
    filling = [(at, min(at, 600.0)) for at in HALF_HOUR]
    assert flat.ROWS.allows(filling)
    assert not flat.ROWS.allows([(at, at) for at in HALF_HOUR])


def test_a_sample_counts_what_the_process_holds(tmp_path: Path) -> None:
    before = sample_of(os.getpid(), 0.0)
    with (tmp_path / "held").open("w"):
        assert sample_of(os.getpid(), 0.0).handles == before.handles + 1
    assert before.memory > 1
    assert before.threads >= 1


def test_connections_and_delays_are_read_from_the_metrics() -> None:
    page = """
# TYPE opencloud_database_connections gauge
opencloud_database_connections{state="in_use"} 2.0
opencloud_database_connections{state="idle"} 3.0
# TYPE opencloud_loop_lag_seconds histogram
opencloud_loop_lag_seconds_bucket{le="0.01"} 40.0
opencloud_loop_lag_seconds_bucket{le="+Inf"} 41.0
opencloud_loop_lag_seconds_count 41.0
opencloud_loop_lag_seconds_sum 0.5
"""
    assert read_metrics(page) == (5, {0.01: 40.0, float("inf"): 41.0})


async def test_rows_and_backlog_are_counted(database: Database, database_url: str) -> None:
    await add_handover(database)
    await add_mail(database)
    kind = "sqlite" if database_url.startswith("sqlite") else "postgresql"
    found = await asyncio.to_thread(look_at_database, TestDatabase(kind, database_url), 1.0)
    assert {name: table.rows for name, table in found.tables.items()} == {
        "jobs": 2, "job_events": 0, "handovers": 1, "handover_numbers": 0, "emails": 1,
    }  # fmt: skip
    assert found.backlog == 2
    assert found.size > 0


def findings(*, growing: bool = False, rows: int = 0, fault: str = "") -> Findings:
    """Half an hour of one process, whose memory grows, and of tables that `rows` come to."""
    watch = Watch.__new__(Watch)
    watch.server_cpu = 9.0
    watch.processes = {
        "gateway-0": [
            ProcessSample(
                at=at,
                memory=90.0 + growing * at / 60,
                handles=20,
                threads=5,
                cpu=at / 50,
                lag={0.001: at, 0.01: 2 * at, float("inf"): 2 * at},
            )
            for at in HALF_HOUR
        ]
    }
    watch.database = [
        DatabaseSample(
            at=at,
            tables={
                name: TableSample(at=at, rows=round(rows * at / 1_800), dead=0, size=1.0)
                for name in TABLES
            },
            size=8.0,
            connections=9,
            backlog=0,
            pids=[],
        )
        for at in HALF_HOUR
    ]
    return Findings(
        watch=watch,
        judged=["gateway-0"],
        kinds={"job": Kind(latencies=[0.1], faults=[fault] if fault else [])},
        ledger=Ledger(),
        verdict=Verdict(settled=True),
        missing_mails=[],
        left_behind=0,
    )


def test_a_run_in_which_all_is_flat_has_no_troubles() -> None:
    shown = render(findings())
    assert "all as it has to be" in shown
    assert "≤ 1, ≤ 10" in shown


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (findings(growing=True), "gateway-0: memory not flat"),
        (findings(rows=1_000), "handovers: rows not flat"),
        (findings(fault="GET /jobs/1: 500"), "job: 1 faults: GET /jobs/1: 500"),
    ],
)
def test_what_is_not_as_it_has_to_be_is_told(found: Findings, told: str) -> None:
    assert told in "\n".join(troubles(found))
    assert told in render(found)
