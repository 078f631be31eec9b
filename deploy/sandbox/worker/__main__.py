"""`python -m deploy.sandbox.worker`: pull jobs and run them until SIGTERM or SIGINT."""

import argparse
import asyncio
import contextlib
import logging
import shutil
import signal
import tempfile
from pathlib import Path

import aiohttp

from deploy.sandbox.worker.connection import PeerConnection, UnreachableError
from deploy.sandbox.worker.job import run_job

log = logging.getLogger("worker")
_PULL_WAIT = 20.0
_PAUSE = 0.5


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.sandbox.worker", description=__doc__)
    parser.add_argument("--peer", default="http://127.0.0.1:8001", help="worker-facing API")
    parser.add_argument("--name", default="w1", help="must differ between workers")
    parser.add_argument("--environment", choices=("cloud", "local"), help="default: any job")
    parser.add_argument("--slots", type=int, default=1, help="jobs at a time")
    parser.add_argument("--keep-alive", type=float, default=3.0, help="seconds between reports")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds of retrying")
    parser.add_argument("--workspace", type=Path, help="default: the system's temporary folder")
    return parser.parse_args()


async def serve(given: argparse.Namespace, workspace: Path) -> None:
    """Run jobs in all slots until cancelled."""
    timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=_PULL_WAIT + 40)
    async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as slots:
        peer = PeerConnection(session, given.peer, given.name, patience=given.patience)
        for _ in range(given.slots):
            slots.create_task(_slot(peer, given, workspace))


async def _slot(peer: PeerConnection, given: argparse.Namespace, workspace: Path) -> None:
    while True:
        try:
            job = await peer.pull(wait=_PULL_WAIT, environment=given.environment)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("the peer does not respond (%s)", type(error).__name__)
            await asyncio.sleep(_PAUSE)
            continue
        if job is None:
            continue
        number = job["job"]["meta"]["job_id"]
        log.info("job %s pulled (entry %s)", number, job["id"])
        try:
            end = await run_job(peer, job, workspace=workspace, keep_alive=given.keep_alive)
        except UnreachableError as error:
            end = f"given up: {error}"
        log.info("job %s: %s", number, end)


async def until_stopped(given: argparse.Namespace, workspace: Path) -> None:
    """Serve until SIGTERM or SIGINT; kills a running command without a report of its job."""
    serving = asyncio.create_task(serve(given, workspace))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def main() -> None:
    given = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    parent = given.workspace or Path(tempfile.gettempdir())
    workspace = parent / f"opencloud-worker-{given.name}"
    # leftovers of a killed worker of this name
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True, mode=0o700)
    try:
        asyncio.run(until_stopped(given, workspace))
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


if __name__ == "__main__":
    main()
