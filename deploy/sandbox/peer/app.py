"""The peer's application: routes, resources, and the retry of stalled jobs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from deploy.sandbox.peer import control, submissions, workers
from deploy.sandbox.peer.files import BucketFiles, LocalFiles, WorkerFiles
from deploy.sandbox.peer.journal import Journal
from deploy.sandbox.peer.queue import JobQueue
from deploy.sandbox.peer.state import PEER, Peer, PeerSettings
from deploy.sandbox.peer.updates import GatewayUpdates

_LARGEST_SUBMISSION = 256 << 20  # a directory of 100 000 files may be an input


def create_app(settings: PeerSettings) -> web.Application:
    """The stand-in worker-facing API, ready to be served."""
    app = web.Application(client_max_size=_LARGEST_SUBMISSION)

    async def resources(app: web.Application) -> AsyncIterator[None]:
        journal = Journal(settings.journal) if settings.journal else None
        files = _files(settings)
        timeout = aiohttp.ClientTimeout(total=settings.update_timeout)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            peer = app[PEER] = Peer(
                settings=settings,
                queue=JobQueue(journal),
                files=files,
                updates=GatewayUpdates(session, settings.gateway, settings.key),
                can_be_asked=settings.can_be_asked,
            )
            watch = asyncio.create_task(retry_stalled(peer))
            yield
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        await files.close()
        if journal:
            journal.close()

    app.cleanup_ctx.append(resources)
    app.add_routes(
        [
            web.post("/_jobs", submissions.submit),
            web.get("/_jobs/{job_id}/status", submissions.question),
            web.get("/openapi.json", submissions.openapi),
            web.post("/workers/{worker}/pull", workers.pull),
            web.get("/entries/{entry}/input", workers.download, allow_head=False),
            web.put("/entries/{entry}/results/{kind}", workers.upload),
            web.put("/entries/{entry}/status", workers.report),
            web.get("/_faults", control.get_faults),
            web.put("/_faults", control.put_faults),
            web.delete("/_faults", control.delete_faults),
            web.get("/_counters", control.get_counters),
            web.delete("/_counters", control.delete_counters),
            web.get("/_arrivals", control.get_arrivals),
            web.get("/_queue", control.get_queue),
        ]
    )
    return app


def _files(settings: PeerSettings) -> WorkerFiles:
    if settings.filesystem == "s3":
        return BucketFiles(settings.bucket, settings.root, settings.region)
    return LocalFiles(settings.root)


async def retry_stalled(peer: Peer) -> None:
    """Retry stalled jobs until cancelled."""
    while True:
        await asyncio.sleep(min(1.0, peer.settings.silence / 4))
        await retry_stalled_once(peer)


async def retry_stalled_once(peer: Peer) -> None:
    """Queue each stalled job again, or end it with an error after too many tries."""
    # one by one: a worker may report while the gateway is informed about another job
    while entry := peer.queue.stalled_for(peer.settings.silence):
        peer.queue.requeue(entry)
        tried = f"(workers tried: {';'.join(entry.tried)})"
        if len(entry.tried) <= peer.settings.retries:
            await peer.forward(entry, "queued", f"timeout {len(entry.tried)} {tried}")
        else:
            peer.queue.set_status(entry, "error")
            await peer.forward(entry, "error", f"max retries reached {tried}")
