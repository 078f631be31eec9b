"""The stand-in worker-facing API keeps the contract that it stands in for."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy.sandbox.peer.app import take_from_silent_workers
from tests.tools.sandbox.support import (
    KEY,
    FakeGateway,
    RunningPeer,
    StartPeer,
    below,
    submission,
    until,
)


async def test_a_submission_is_taken_and_echoed(peer: RunningPeer) -> None:
    status, echo = await peer.submit(7)
    assert (status, echo) == (201, submission(7))


async def test_the_same_submission_twice_is_two_entries(peer: RunningPeer) -> None:
    await peer.submit(7)
    await peer.submit(7)
    _, queue = await peer.call("GET", "/_queue")
    assert [(entry["id"], entry["job_id"]) for entry in queue] == [(1, 7), (2, 7)]


@pytest.mark.parametrize(("key", "expected"), [("wrong", 401), ("", 401), (KEY, 201)])
async def test_the_key_decides(peer: RunningPeer, key: str, expected: int) -> None:
    status, _ = await peer.submit(1, key=key)
    assert status == expected


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
    await until(lambda: peer.state.queue._arrived._waiters)
    await peer.submit(5)
    _, job = await asyncio.wait_for(waiting, 5)
    assert job["job"]["meta"]["job_id"] == 5


async def test_a_status_is_forwarded_with_the_internal_key(
    peer: RunningPeer, gateway: FakeGateway
) -> None:
    await peer.submit(9)
    _, job = await peer.pull()
    assert await peer.report(job["id"], "running") == (200, "running")
    assert gateway.updates == [(9, "running", None)]
    assert gateway.keys == {KEY}


async def test_a_404_deletes_that_copy_only_and_stops_its_worker(
    peer: RunningPeer, gateway: FakeGateway
) -> None:
    gateway.answer = lambda update: 404 if update["job_id"] == 1 else 200
    await peer.submit(1)
    await peer.submit(2)
    _, first = await peer.pull("w1")
    _, second = await peer.pull("w2")
    assert (await peer.report(first["id"], "pulled", "w1"))[0] == 404
    assert (await peer.report(second["id"], "pulled", "w2"))[0] == 200
    _, queue = await peer.call("GET", "/_queue")
    assert [entry["job_id"] for entry in queue] == [2]


async def test_an_update_that_the_gateway_does_not_take_is_the_workers_to_repeat(
    peer: RunningPeer, gateway: FakeGateway
) -> None:
    gateway.answer = lambda update: 503
    await peer.submit(1)
    _, job = await peer.pull()
    assert (await peer.report(job["id"], "running"))[0] == 503
    assert len(gateway.updates) == 1
    _, counters = await peer.call("GET", "/_counters")
    assert counters["runs"]["total"] == 0


async def test_a_silent_workers_job_goes_to_another_one_and_then_to_error(
    start_peer: StartPeer, gateway: FakeGateway
) -> None:
    peer = await start_peer(silence=0.2, retries=1)
    await peer.submit(3)
    await peer.pull("w1")
    await gateway.until(lambda: (3, "queued", "timeout 1 (workers tried: w1)") in gateway.updates)
    _, again = await peer.pull("w2")
    assert (await peer.report(again["id"], "running", "w1"))[0] == 404
    gone = (3, "error", "max retries reached (workers tried: w1;w2)")
    await gateway.until(lambda: gone in gateway.updates)


async def test_a_worker_that_is_heard_while_another_ones_job_is_taken_keeps_its_own(
    start_peer: StartPeer, gateway: FakeGateway
) -> None:
    peer = await start_peer(silence=100.0)
    for number in (1, 2):
        await peer.submit(number)
        await peer.pull(f"w{number}")
    for entry in peer.state.queue:
        entry.last_seen -= 200.0

    def hear_the_other(update: dict[str, Any]) -> int:
        assert peer.state.queue.of_worker(2, "w2")
        return 200

    gateway.answer = hear_the_other
    await take_from_silent_workers(peer.state)
    assert [entry.worker for entry in peer.state.queue] == [None, "w2"]


async def test_a_killed_peer_knows_its_queue_again(start_peer: StartPeer, tmp_path: Path) -> None:
    journal = tmp_path / "queue.jsonl"
    before = await start_peer(journal=journal)
    for number in (1, 2, 3):
        await before.submit(number)
    _, job = await before.pull("w1")
    after = await start_peer(journal=journal)
    assert (await after.report(job["id"], "running", "w1"))[0] == 200
    assert (await after.pull("w2"))[1]["job"]["meta"]["job_id"] == 2
    await after.submit(4)
    _, queue = await after.call("GET", "/_queue")
    assert [entry["id"] for entry in queue] == [1, 2, 3, 4]


async def test_the_question_is_answered_only_where_it_is_switched_on(peer: RunningPeer) -> None:
    await peer.submit(4)
    headers = {"x-api-key": KEY}
    assert (await peer.call("GET", "/_jobs/4/status", headers=headers))[0] == 404
    await peer.faults(can_be_asked=True)
    assert await peer.call("GET", "/_jobs/4/status", headers=headers) == (200, "queued")
    assert (await peer.call("GET", "/_jobs/5/status", headers=headers))[0] == 404
    assert (await peer.call("GET", "/_jobs/4/status", headers={"x-api-key": "no"}))[0] == 401


async def test_the_description_needs_no_key(peer: RunningPeer) -> None:
    status, answer = await peer.call("GET", "/openapi.json")
    assert status == 200
    assert answer["openapi"].startswith("3.")


@pytest.mark.parametrize("status", [400, 401, 409, 413, 422, 429, 500, 502, 503, 504])
async def test_a_chosen_status_is_answered_without_taking_the_job(
    peer: RunningPeer, status: int
) -> None:
    await peer.faults({"fault": "status", "status": status, "times": 1})
    assert (await peer.submit(1))[0] == status
    assert len(peer.state.queue) == 0
    assert (await peer.submit(1))[0] == 201


@pytest.mark.parametrize(("fault", "taken"), [("drop_before", 0), ("drop_after", 1)])
async def test_a_dropped_connection_gives_no_answer(
    peer: RunningPeer, fault: str, taken: int
) -> None:
    await peer.faults({"fault": fault})
    with pytest.raises(aiohttp.ClientConnectionError):
        await peer.submit(1)
    assert len(peer.state.queue) == taken


async def test_a_hanging_answer_holds_up_nobody_else(
    peer: RunningPeer, session: aiohttp.ClientSession
) -> None:
    await peer.faults({"fault": "hang", "numbers": [1]})
    short = aiohttp.ClientTimeout(total=0.3)
    with pytest.raises(TimeoutError):
        await session.post(
            peer.url + "/_jobs", json=submission(1), headers={"x-api-key": KEY}, timeout=short
        )
    assert (await peer.submit(2))[0] == 201
    assert len(peer.state.queue) == 2


async def test_a_delay_holds_up_the_next_submission(peer: RunningPeer) -> None:
    await peer.faults({"fault": "delay", "seconds": 0.3, "numbers": [1]})
    ends: list[int] = []

    async def submit(number: int) -> None:
        await peer.submit(number)
        ends.append(number)

    first = asyncio.create_task(submit(1))
    await until(peer.state.one_at_a_time.locked)
    await asyncio.gather(first, submit(2))
    assert ends == [1, 2]


async def test_a_dripping_answer_is_the_right_one_in_the_end(peer: RunningPeer) -> None:
    await peer.faults({"fault": "drip", "seconds": 0.0001})
    assert await peer.submit(1) == (201, submission(1))


async def test_a_page_of_html_is_answered_with_200(
    peer: RunningPeer, session: aiohttp.ClientSession
) -> None:
    await peer.faults({"fault": "html"})
    headers = {"x-api-key": KEY}
    async with session.post(peer.url + "/_jobs", json=submission(1), headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
    assert len(peer.state.queue) == 0


async def test_a_redirect_and_garbage_are_as_asked_for(
    peer: RunningPeer, session: aiohttp.ClientSession
) -> None:
    await peer.faults({"fault": "redirect", "times": 1}, {"fault": "garbage", "commit": True})
    where = {"url": peer.url + "/_jobs", "json": submission(1), "headers": {"x-api-key": KEY}}
    async with session.post(**where, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (307, "/elsewhere")
    async with session.post(**where) as answer:
        assert answer.status == 200
        with pytest.raises(ValueError, match="Expecting"):
            await answer.json()
    assert len(peer.state.queue) == 1


async def test_a_fault_can_be_for_jobs_by_name(peer: RunningPeer) -> None:
    await peer.faults({"fault": "status", "status": 422, "names": "poison*"})
    assert (await peer.submit(1, name="poisoned"))[0] == 422
    assert (await peer.submit(2, name="healthy"))[0] == 201


async def test_a_wrong_fault_is_refused_in_a_sentence(peer: RunningPeer) -> None:
    status, answer = await peer.call("PUT", "/_faults", json={"rules": [{"fault": "explode"}]})
    assert status == 422
    assert "unknown fault 'explode'" in answer["detail"]


async def test_counters_tell_submissions_by_number_and_connections(peer: RunningPeer) -> None:
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
    await peer.submit(1, files_down={"data/f": uri.format(root=root)})
    _, job = await peer.pull()
    status, _ = await peer.call("GET", f"/entries/{job['id']}/input?worker=w1&path=data/f")
    assert status == 403


@pytest.mark.parametrize("path", ["../x", "..", "a/../../x", "/x", "", "a//b", "a/%00"])
async def test_no_result_lands_outside_its_folder(peer: RunningPeer, root: Path, path: str) -> None:
    await peer.submit(1, root=str(root))
    _, job = await peer.pull()
    url = f"/entries/{job['id']}/results/output?worker=w1&path={path}"
    status, _ = await peer.call("PUT", url, data=b"evil")
    assert status == 403
    assert below(root) == []


async def test_an_input_that_is_gone_is_said_to_be(peer: RunningPeer, root: Path) -> None:
    await peer.submit(1, files_down={"data/f": f"{root}/u/data/f"})
    _, job = await peer.pull()
    status, answer = await peer.call("GET", f"/entries/{job['id']}/input?worker=w1&path=data/f")
    assert status == 404
    assert "gone" in answer["detail"]
