"""The worker as a process, with the peer and a fake gateway."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from devtools.services import REPOSITORY
from devtools.waiting import eventually
from tests.tools.sandbox.support import FakeGateway, RunningPeer, StartPeer

Worker = asyncio.subprocess.Process
StartWorker = Callable[[RunningPeer], Awaitable[Worker]]


@pytest.fixture
async def start_worker(tmp_path: Path) -> AsyncIterator[StartWorker]:
    workers: list[Worker] = []

    async def start(peer: RunningPeer) -> Worker:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.sandbox.worker", "--peer", peer.url, "--name", "w1"),
            *("--keep-alive", "0.1", "--workspace", str(tmp_path)),
            cwd=REPOSITORY,
        )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        if worker.returncode is None:
            worker.terminate()
        await asyncio.wait_for(worker.wait(), 30)


@pytest.fixture
async def served(peer: RunningPeer, start_worker: StartWorker) -> RunningPeer:
    """A peer with a worker."""
    await start_worker(peer)
    return peer


def sleeping() -> str:
    """Seconds that no other process on this machine sleeps, those of other test runs included."""
    return f"97531.{uuid4().int}"


def is_running(marker: str) -> bool:
    """Whether any process has the marker in its command line."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in process.read_bytes():
                return True
        except OSError:
            continue
    return False


async def test_a_failing_command_reports_the_end_of_its_log_last(
    served: RunningPeer, gateway: FakeGateway, root: Path
) -> None:
    await served.submit(3, root=str(root), cmd=["echo the reason; exit 2"])
    await eventually(lambda: any(details for *_, details in gateway.updates))
    assert gateway.statuses(3) == [
        "pulled", "preprocessing", "running", "error", "postprocessing", "error",
    ]  # fmt: skip
    details = gateway.updates[-1][2] or ""
    assert "the reason" in details
    assert details.endswith("worker: the command ended with status 2")
    assert "the reason" in (root / "u/log/train/job.log").read_text()


@pytest.mark.parametrize(
    ("path", "source", "reason"),
    [
        ("data/f", "u/data/missing", "input file is gone"),
        ("../../../escaped", "f", "leads out of the work folder"),
    ],
)
async def test_a_missing_input_and_a_hostile_path_are_errors_with_a_reason(
    served: RunningPeer, gateway: FakeGateway, root: Path, tmp_path: Path,
    path: str, source: str, reason: str,
) -> None:  # fmt: skip
    (root / "f").write_text("evil")
    await served.submit(4, root=str(root), files_down={path: f"{root}/{source}"})
    await eventually(lambda: any(details for *_, details in gateway.updates))
    assert reason in (gateway.updates[-1][2] or "")
    assert "running" not in gateway.statuses(4)
    assert not list(tmp_path.rglob("escaped"))


async def test_a_404_kills_the_command_with_everything_that_it_started(
    served: RunningPeer, gateway: FakeGateway, root: Path
) -> None:
    marker = sleeping()
    await served.submit(5, root=str(root), cmd=[f"sleep {marker} & sleep {marker}; true"])
    await eventually(lambda: [s for _, s, _ in gateway.updates].count("running") >= 3)
    assert is_running(marker)
    gateway.answer = lambda update: 404 if update["job_id"] == 5 else 200
    await served.submit(6, root=str(root))
    await eventually(lambda: "finished" in gateway.statuses(6))
    assert not is_running(marker)
    assert "finished" not in gateway.statuses(5)


async def test_the_worker_repeats_what_the_gateway_did_not_take(
    served: RunningPeer, gateway: FakeGateway, root: Path
) -> None:
    answers = iter([503, 500, 503])
    gateway.answer = lambda update: next(answers, 200)
    await served.submit(8, root=str(root), cmd=["echo hello > output/greeting"])
    await eventually(lambda: "finished" in gateway.statuses(8))
    assert (root / "u/output/train/greeting").read_text() == "hello\n"


async def test_sigterm_stops_the_worker_and_its_command(
    peer: RunningPeer, gateway: FakeGateway, start_worker: StartWorker, root: Path, tmp_path: Path
) -> None:
    worker = await start_worker(peer)
    marker = sleeping()
    await peer.submit(9, root=str(root), cmd=["sleep", marker])
    await eventually(lambda: "running" in gateway.statuses(9))
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(worker.wait(), 30) == 0
    assert not is_running(marker)
    assert not list(tmp_path.rglob("opencloud-worker-*"))


async def test_a_killed_workers_job_is_run_by_the_next_one(
    start_peer: StartPeer, gateway: FakeGateway, start_worker: StartWorker, root: Path
) -> None:
    peer = await start_peer(silence=1.0)
    marker = sleeping()
    first = await start_worker(peer)
    cmd = [f"test -e {root}/second || {{ touch {root}/second; exec sleep {marker}; }}"]
    await peer.submit(10, root=str(root), cmd=cmd)
    await eventually(lambda: "running" in gateway.statuses(10) and (root / "second").exists())
    first.kill()
    await eventually(lambda: "queued" in gateway.statuses(10))
    assert not is_running(marker)
    await start_worker(peer)
    await eventually(lambda: gateway.statuses(10)[-1:] == ["finished"])
