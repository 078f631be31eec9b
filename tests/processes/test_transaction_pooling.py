"""All services behind a proxy that pools transactions, and the proxy restarted under them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from common.database.engine import Database
from common.database.tables import emails, handovers, jobs
from devtools.postgres import Server
from devtools.user_pool import Issuer
from devtools.waiting import eventually
from tests.support.cloud import Cloud, on_postgresql
from tests.support.dispatcher import FakePeer
from tests.support.key_server import KeyServer
from tests.support.notifier import FakeMailjet
from tests.support.pgbouncer import PgBouncer, is_installed, running_pgbouncer
from tests.support.records import rows

pytestmark = [
    on_postgresql,
    pytest.mark.skipif(not is_installed(), reason="pgbouncer is not installed"),
]

AT_ONCE = 60


@pytest.fixture
def proxy(postgres: Server) -> Iterator[PgBouncer]:
    with running_pgbouncer(postgres.url) as proxy:
        yield proxy


@pytest.fixture
async def cloud(
    database: Database, proxy: PgBouncer, issuer: Issuer, key_server: KeyServer, tmp_path: Path
) -> AsyncIterator[Cloud]:
    url = proxy.url_of(str(database.settings.url.database))
    own = {"DATABASE_STATEMENT_CACHE": "false"}
    async with Cloud(url, tmp_path, issuer, key_server.url, **own) as cloud:
        yield cloud


async def live(cloud: Cloud, peer: FakePeer, name: str) -> int:
    """Submit a job and report it to its end, with retries; returns its id."""
    status = None
    while status not in {201, 409}:
        status, job_id = await cloud.caller.submit(name)
        assert status in {201, 503, 409}
    if status == 409:  # the answer before was lost with the proxy
        return 0
    await eventually(lambda: job_id in peer.taken, within=30)
    for report in ("pulled", "running", "running", "finished"):
        while (answer := await cloud.caller.report(job_id, report)) != 200:
            assert answer == 503
    return job_id


async def test_jobs_go_from_submission_to_mail_across_a_restart_of_the_proxy(
    cloud: Cloud, database: Database, proxy: PgBouncer, peer: FakePeer, mailjet: FakeMailjet
) -> None:
    processes = [await cloud.gateway(), cloud.dispatcher(), cloud.dispatcher(), cloud.notifier()]
    for process in processes:
        await process.wait_until_ready()
    first = await live(cloud, peer, "first")
    await eventually(lambda: len(mailjet.sent) == 1)
    assert await cloud.caller.delete(first) == 204

    lives = [asyncio.ensure_future(live(cloud, peer, f"job-{n}")) for n in range(AT_ONCE)]
    await eventually(lambda: len(peer.taken) > AT_ONCE // 4)
    await asyncio.to_thread(proxy.stop)
    await eventually(lambda: cloud_is_cut_off(cloud))
    await asyncio.to_thread(proxy.start)
    ids = set(await asyncio.gather(*lives)) - {0}
    await eventually(lambda: all_settled(database), within=30)

    there = {row["id"]: row["status"] for row in await rows(database, jobs)}
    assert len(there) == AT_ONCE
    assert {there[job_id] for job_id in ids} == {"finished"}
    assert set(there) <= set(peer.taken)
    assert len(peer.taken) == len(set(peer.taken))
    assert sorted(mail["CustomID"] for mail in mailjet.sent[1:]) == sorted(
        row["custom_id"] for row in await rows(database, emails)
    )
    for process in processes:
        assert "exception" not in process.output
        assert await process.terminate() == 0


async def cloud_is_cut_off(cloud: Cloud) -> bool:
    return (await cloud.caller.ask("GET", "/jobs")).status == 503


async def all_settled(database: Database) -> bool:
    found = [*await rows(database, handovers), *await rows(database, emails)]
    return {row["state"] for row in found} == {"done"}
