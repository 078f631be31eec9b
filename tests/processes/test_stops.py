"""All services receive SIGTERM at once, under load."""

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from functools import partial

from common.database.engine import Database
from common.database.tables import emails, handover_numbers, handovers, jobs
from devtools.services import Process
from devtools.waiting import eventually
from tests.support import clients
from tests.support.clients import Client, connected
from tests.support.cloud import USER, Cloud, Held, locked_jobs
from tests.support.dispatcher import FakePeer
from tests.support.notifier import FakeMailjet
from tests.support.records import add_handover, add_mail, outbox_row, rows

GRACE = 60
SIZE = 16 << 20
HALF = b"x" * 100_000


async def begin_upload(client: Client) -> None:
    await client.begin_upload("file", 2 * len(HALF))
    await client.send(HALF)


async def begin_portion(client: Client, target: str) -> None:
    await client.begin_portion(target, 2 * len(HALF))
    await client.send(HALF)


async def ask_once(client: Client) -> None:
    await client.begin("GET", "/", 0)
    assert (await client.read()).startswith(b"HTTP/1.1 200 ")


async def are_under_way(process: Process, requests: int) -> bool:
    return await process.metric("opencloud_requests_in_flight") == requests


async def is_draining(process: Process) -> bool:
    return await process.probe("/readyz") == 503


async def test_work_in_flight_is_finished_when_every_service_is_stopped(
    cloud: Cloud, database: Database, peer: FakePeer, mailjet: FakeMailjet
) -> None:
    content = os.urandom(SIZE)
    cloud.plant("data/large/file", content)
    sent, mailed = await add_handover(database), await add_mail(database)
    peer.behave = at_peer = Held()
    async with AsyncExitStack() as stack:
        mailjet.behave = at_mailjet = Held()
        own = {"SHUTDOWN_GRACE": GRACE, "HANDOVER_TIMEOUT": GRACE, "EMAIL_TIMEOUT": GRACE}
        gateway = await cloud.gateway(group=0, DRAIN_DELAY=4, **own)
        processes = [
            gateway,
            cloud.dispatcher(group=gateway.pid, **own),
            cloud.notifier(group=gateway.pid, **own),
        ]
        await asyncio.wait_for(at_peer.reached.wait(), 30)
        await asyncio.wait_for(at_mailjet.reached.wait(), 30)
        target = await cloud.caller.begin_upload("data/slow/resumable", 2 * len(HALF))
        kinds = [begin_upload, partial(begin_portion, target=target)]
        kinds += [clients.stop_in_download, ask_once]
        connections = connected(cloud.port, cloud.token, kinds, 1)
        upload, portion, download, idle = await stack.enter_async_context(connections)
        async with locked_jobs(cloud):
            submit = partial(clients.submit, name="under-way")
            connections = connected(cloud.port, cloud.token, [submit], 1)
            (submission,) = await stack.enter_async_context(connections)
            await eventually(lambda: are_under_way(gateway, 4))  # all but the idle one
            os.killpg(gateway.pid, signal.SIGTERM)
            stopped = time.monotonic()
            # during the drain delay, new requests are served, and their connections closed
            await eventually(lambda: is_draining(gateway))
            late = await cloud.caller.ask("GET", "/user")
            assert (late.status, late.headers["Connection"]) == (200, "close")
            for process in processes:
                await eventually(lambda process=process: is_draining(process))
                assert await process.probe("/livez") == 200
        await upload.send(HALF + clients.END)
        await portion.send(HALF)
        at_peer.released.set()
        at_mailjet.released.set()
        answers = await asyncio.gather(
            *(client.read_all() for client in (upload, portion, download, submission, idle))
        )
        statuses = await asyncio.gather(*(process.wait() for process in processes))
        took = time.monotonic() - stopped

    assert statuses == [0, 0, 0]
    assert took < GRACE
    uploaded, resumed, downloaded, submitted, nothing = answers
    assert uploaded.startswith(b"HTTP/1.1 201 ")
    assert resumed.startswith(b"HTTP/1.1 204 ")
    for name in ("file", "resumable"):
        assert (cloud.root / USER / "data" / "slow" / name).read_bytes() == 2 * HALF
    assert downloaded.endswith(content[-1_000_000:])
    assert submitted.startswith(b"HTTP/1.1 201 ")
    assert nothing == b""
    assert peer.taken == [sent]
    assert len(mailjet.sent) == 1
    assert (await outbox_row(database, handovers, sent))["state"] == "done"
    assert (await outbox_row(database, emails, mailed))["state"] == "done"
    assert await rows(database, handover_numbers) == []
    (job,) = [row for row in await rows(database, jobs) if row["job_name"] == "under-way"]
    assert (await outbox_row(database, handovers, job["id"]))["state"] == "pending"
    for process in processes:
        assert '"event":"process.stopped"' in process.output
        assert "cut_short" not in process.output
        assert "exception" not in process.output
