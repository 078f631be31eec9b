"""The stand-in worker-facing API keeps the contract of the real one."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy.sandbox.peer.app import retry_stalled_once
from devtools.waiting import eventually
from tests.tools.sandbox.support import (
    KEY,
    FakeGateway,
    RunningPeer,
    StartPeer,
    submission,
)


async def test_each_submission_is_echoed_and_a_new_entry(peer: RunningPeer) -> None:
    for _ in range(2):
        assert await peer.submit(7) == (201, submission(7))
    assert [(entry["id"], entry["job_id"]) for entry in await peer.queue()] == [(1, 7), (2, 7)]


@pytest.mark.parametrize(("key", "expected"), [("wrong", 401), ("", 401), (KEY, 201)])
async def test_a_submission_needs_the_key_and_the_description_does_not(
    peer: RunningPeer, key: str, expected: int
) -> None:
    assert (await peer.submit(1, key=key))[0] == expected
    status, description = await peer.call("GET", "/openapi.json")
    assert (status, description["openapi"][:2]) == (200, "3.")


async def test_a_body_that_is_no_job_is_refused_naming_the_place(peer: RunningPeer) -> None:
    body = submission(1)
    del body["job"]["meta"]["job_id"]
    status, answer = await peer.call("POST", "/_jobs", json=body, headers={"x-api-key": KEY})
    assert status == 422
    assert answer["detail"][0]["loc"] == ["body", "job", "meta", "job_id"]


async def test_workers_pull_by_priority_then_age(peer: RunningPeer) -> None:
    for number, priority in ((1, 0), (2, 5), (3, 0), (4, 5)):
        await peer.submit(number, priority=priority)
    pulled = [(await peer.pull())[1]["job"]["meta"]["job_id"] for _ in range(4)]
    assert pulled == [2, 4, 1, 3]
    assert (await peer.pull())[0] == 204


async def test_a_worker_gets_jobs_of_its_environment_only(peer: RunningPeer) -> None:
    await peer.submit(1, environment="cloud")
    await peer.submit(2, environment="local")
    await peer.submit(3)
    local = "/workers/w1/pull?environment=local"
    pulled = [(await peer.call("POST", local))[1] for _ in range(2)]
    assert [job["job"]["meta"]["job_id"] for job in pulled] == [2, 3]
    assert (await peer.call("POST", local))[0] == 204


async def test_a_waiting_pull_gets_the_job_that_arrives(peer: RunningPeer) -> None:
    waiting = asyncio.create_task(peer.call("POST", "/workers/w1/pull?wait=20"))
    await eventually(lambda: peer.state.queue._arrived._waiters)
    await peer.submit(5)
    _, job = await asyncio.wait_for(waiting, 15)
    assert job["job"]["meta"]["job_id"] == 5


async def test_an_update_that_the_gateway_rejects_is_not_repeated_by_the_peer(
    peer: RunningPeer, gateway: FakeGateway
) -> None:
    gateway.answer = lambda update: 503
    assert (await peer.report(await peer.submit_and_pull(9), "running"))[0] == 503
    assert (gateway.updates, gateway.keys) == ([(9, "running", None)], {KEY})
    _, counters = await peer.call("GET", "/_counters")
    assert counters["runs"]["total"] == 0


async def test_a_stalled_job_goes_to_another_worker_and_then_to_error(
    start_peer: StartPeer, gateway: FakeGateway
) -> None:
    peer = await start_peer(silence=0.2, retries=1)
    await peer.submit_and_pull(3, "w1")
    await eventually(lambda: (3, "queued", "timeout 1 (workers tried: w1)") in gateway.updates)
    _, again = await peer.pull("w2")
    assert (await peer.report(again["id"], "running", "w1"))[0] == 404
    gone = (3, "error", "max retries reached (workers tried: w1;w2)")
    await eventually(lambda: gone in gateway.updates)


async def test_a_worker_that_reports_during_the_retry_of_another_job_keeps_its_own(
    start_peer: StartPeer, gateway: FakeGateway
) -> None:
    peer = await start_peer(silence=100.0)
    for number in (1, 2):
        await peer.submit_and_pull(number, f"w{number}")
    for entry in peer.state.queue:
        entry.last_seen -= 200.0

    def report_the_other(update: dict[str, Any]) -> int:
        assert peer.state.queue.of_worker(2, "w2")
        return 200

    gateway.answer = report_the_other
    await retry_stalled_once(peer.state)
    assert [entry.worker for entry in peer.state.queue] == [None, "w2"]


async def test_a_killed_peer_recovers_its_queue(start_peer: StartPeer, tmp_path: Path) -> None:
    journal = tmp_path / "queue.jsonl"
    before = await start_peer(journal=journal)
    entry = await before.submit_and_pull(1)
    for number in (2, 3):
        await before.submit(number)
    after = await start_peer(journal=journal)
    assert (await after.report(entry, "running"))[0] == 200
    assert (await after.pull("w2"))[1]["job"]["meta"]["job_id"] == 2
    await after.submit(4)
    assert [entry["id"] for entry in await after.queue()] == [1, 2, 3, 4]


async def test_a_jobs_status_is_available_only_if_enabled(peer: RunningPeer) -> None:
    await peer.submit(4)
    headers = {"x-api-key": KEY}
    assert (await peer.call("GET", "/_jobs/4/status", headers=headers))[0] == 404
    await peer.faults(can_be_asked=True)
    assert await peer.call("GET", "/_jobs/4/status", headers=headers) == (200, "queued")
    assert (await peer.call("GET", "/_jobs/5/status", headers=headers))[0] == 404
    assert (await peer.call("GET", "/_jobs/4/status", headers={"x-api-key": "no"}))[0] == 401


@pytest.mark.parametrize("status", [400, 401, 409, 413, 422, 429, 500, 502, 503, 504])
async def test_a_configured_status_is_returned_without_accepting_the_job(
    peer: RunningPeer, status: int
) -> None:
    await peer.faults({"fault": "status", "status": status, "times": 1})
    assert (await peer.submit(1))[0] == status
    assert len(peer.state.queue) == 0
    assert (await peer.submit(1))[0] == 201


@pytest.mark.parametrize(("fault", "taken"), [("drop_before", 0), ("drop_after", 1)])
async def test_a_broken_connection_has_no_response(
    peer: RunningPeer, fault: str, taken: int
) -> None:
    await peer.faults({"fault": fault})
    with pytest.raises(aiohttp.ClientConnectionError):
        await peer.submit(1)
    assert len(peer.state.queue) == taken


async def test_a_delay_also_delays_the_next_submission(peer: RunningPeer) -> None:
    await peer.faults({"fault": "delay", "seconds": 0.3, "numbers": [1]})
    ends: list[int] = []

    async def submit(number: int) -> None:
        await peer.submit(number)
        ends.append(number)

    first = asyncio.create_task(submit(1))
    await eventually(peer.state.one_at_a_time.locked)
    await asyncio.gather(first, submit(2))
    assert ends == [1, 2]


async def test_a_dripping_response_is_right_in_the_end(peer: RunningPeer) -> None:
    await peer.faults({"fault": "drip", "seconds": 0.0001})
    assert await peer.submit(1) == (201, submission(1))


async def test_a_page_a_redirect_and_garbage_come_in_the_order_of_the_rules(
    peer: RunningPeer,
) -> None:
    await peer.faults(
        {"fault": "html", "times": 1},
        {"fault": "redirect", "times": 1},
        {"fault": "garbage", "commit": True},
    )
    async with peer.post() as response:
        assert (response.status, response.content_type) == (200, "text/html")
    async with peer.post(allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, "/elsewhere")
    assert len(peer.state.queue) == 0
    async with peer.post() as response:
        assert response.status == 200
        with pytest.raises(ValueError, match="Expecting"):
            await response.json()
    assert len(peer.state.queue) == 1


async def test_an_invalid_fault_is_refused_with_a_sentence(peer: RunningPeer) -> None:
    status, answer = await peer.call("PUT", "/_faults", json={"rules": [{"fault": "explode"}]})
    assert status == 422
    assert "unknown fault 'explode'" in answer["detail"]


async def test_counters_have_submissions_by_number_and_connections(peer: RunningPeer) -> None:
    await peer.faults({"fault": "status", "status": 503, "times": 1})
    for _ in range(3):
        await peer.submit(6)
    _, counters = await peer.call("GET", "/_counters")
    assert counters["submissions"]["received_by_number"] == {"6": 3}
    assert counters["submissions"]["accepted_by_number"] == {"6": 2}
    assert counters["connections"] == 1
    _, arrivals = await peer.call("GET", "/_arrivals")
    assert [arrival[0] for arrival in arrivals] == [6, 6, 6]


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "{root}/../secret",
        "{root}/u/../../secret",
        "{root}/u//x",
        "{root}",
        "{root}x/secret",
        "{root}/link/secret",
    ],
)
async def test_no_input_comes_from_outside_the_root(
    peer: RunningPeer, root: Path, tmp_path: Path, uri: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path)
    entry = await peer.submit_and_pull(files_down={"data/f": uri.format(root=root)})
    status, _ = await peer.call("GET", f"/entries/{entry}/input?worker=w1&path=data/f")
    assert status == 403


@pytest.mark.parametrize("path", ["../x", "..", "a/../../x", "/x", "", "a//b", "a/%00"])
async def test_no_result_lands_outside_its_folder(peer: RunningPeer, root: Path, path: str) -> None:
    entry = await peer.submit_and_pull(root=str(root))
    url = f"/entries/{entry}/results/output?worker=w1&path={path}"
    status, _ = await peer.call("PUT", url, data=b"evil")
    assert status == 403
    assert list(root.rglob("*")) == []


async def test_a_missing_input_is_not_found(peer: RunningPeer, root: Path) -> None:
    entry = await peer.submit_and_pull(files_down={"data/f": f"{root}/u/data/f"})
    status, answer = await peer.call("GET", f"/entries/{entry}/input?worker=w1&path=data/f")
    assert status == 404
    assert "gone" in answer["detail"]
