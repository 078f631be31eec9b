"""What one user's calls take while another one does its worst, beside the same calls alone."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

import orjson

from benchmarks import calls, seed
from benchmarks.environment import Environment
from benchmarks.hostile import Behaviour, Client, hostile
from benchmarks.isolation import in_own_process
from benchmarks.messages import Endpoint, form_parts
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Baseline, Figure, Result, milliseconds
from deploy.sandbox import aws
from deploy.sandbox.ports import LOOPBACK, free_port
from devtools.postgres import run_apart
from devtools.services import Process
from devtools.user_pool import USER

_OTHER: Final = "other-user"
_GROUP: Final = "p99 of a user's calls while another user …"
_CONNECTIONS: Final = 32
"""Connections of the options for which the numbers of clients here are stated."""

_LARGE: Final = 8 << 20
_BUCKET: Final = "fairness"
_AIM: Final = 1 / 3
_ROUNDS: Final = 2
"""Times the seconds of the options, since a p99 takes many calls."""

_LONG: Final = 1_000_000
_LONG_JOBS: Final = 40

Group = tuple[int, Behaviour]


@benchmark("fairness", Scope.POSTGRESQL, usual=False)
def fairness(env: Environment) -> Iterator[Result]:
    """six calls of a user, alone and while another user does each of its worst"""
    seed.make_tree(env.folder / "user_data", _OTHER)
    (running,) = seed.add_jobs(env.database, 1, user=f"'{_OTHER}'", prefix="mine", status="running")
    _add_long_jobs(env)
    seed.add_many_files(env.tree / "data" / "many", env.options.small_files, 10)
    seed.add_many_files(env.tree / "data" / "some", env.options.small_files // 10, 10)
    (env.tree / "data" / "large").write_bytes(bytes(_LARGE))
    with _gateway(env) as endpoint:
        results = list(_compared(env, running, endpoint, _faults(env)))
    with _on_s3(env) as endpoint:
        results += _compared(env, running, endpoint, _faults_on_s3(env))
    yield from results
    ratios = (result.figure.value / result.baselines[0].figure.value for result in results)
    yield Result(_GROUP, "the worst p99, as a multiple of that alone", Figure(max(ratios), "×"))


def _add_long_jobs(env: Environment) -> None:
    first, *_, last = seed.add_jobs(env.database, _LONG_JOBS, user=f"'{USER}'", prefix="long")
    env.database.execute(
        f"UPDATE jobs SET runtime_details = repeat('x', {_LONG})"
        f" WHERE id BETWEEN {first} AND {last}"
    )


def _compared(
    env: Environment, running: int, endpoint: Endpoint, faults: dict[str, list[Group]]
) -> Iterator[Result]:
    """Each call's p99 during each fault, beside that of the same call alone.

    `running` is the id of the calling user's job that has a worker.
    """
    user = replace(endpoint, headers=env.pool.headers(_OTHER))
    peer = replace(endpoint, headers=env.peer.headers)
    caller, seconds = calls.Caller(user, peer, running), _ROUNDS * env.options.seconds
    in_own_process(caller.measure, seconds / 4)  # warms up
    alone = in_own_process(caller.measure, seconds)
    for fault, groups in faults.items():
        with hostile(endpoint, groups):
            beside = in_own_process(caller.measure, seconds)
        for name in calls.NAMES:
            slow, usual = milliseconds(beside[name], 0.99), milliseconds(alone[name], 0.99)
            note = f"{len(beside[name])} calls, {len(alone[name])} alone; the slowest took"
            note += f" {milliseconds(beside[name], 1.0).value:.0f} ms"
            baseline = Baseline("alone", usual, aim=_AIM)
            yield Result(_GROUP, f"{fault}: {name}", slow, (baseline,), None, note)


def _faults(env: Environment) -> dict[str, list[Group]]:
    """Each kind in which one client can get into the way of all others."""

    def group(count: int, behave: Behaviour) -> Group:
        return max(1, count * env.options.connections // _CONNECTIONS), behave

    files = env.options.small_files
    twice = ["some", "some/"] * (files // 20)
    return {
        "names a directory again and again, and many that are none": [
            group(4, _submit(twice)),
            group(4, _submit([f"none/{number}" for number in range(files)])),
        ],
        "reads long jobs slowly": [group(120, _stop_in("/jobs?limit=10000"))],
        "reads and deletes long jobs": [group(4, _come_and_go(env.peer))],
        "lists, zips and downloads": [
            group(150, _list_anew),
            group(60, _stop_in("/files/data/many/download")),
            group(300, _stop_in("/files/data/large/download")),
        ],
        "announces bodies": [group(500, _announce)],
    }


def _faults_on_s3(env: Environment) -> dict[str, list[Group]]:
    trickling, reading = (
        max(1, count * env.options.connections // _CONNECTIONS) for count in (24, 260)
    )
    download = _stop_in("/files/data/large/download")
    return {"trickles on S3": [(trickling, _trickle), (reading, download)]}


@contextmanager
def _gateway(env: Environment, **changes: str) -> Iterator[Endpoint]:
    """A gateway with the usual limits on users, unlike that of other benchmarks."""
    port = free_port()
    own = {"HOST": LOOPBACK, "PORT": str(port), "MAX_CONCURRENT_REQUESTS": "64", **changes}
    gateway = Process("gateway", env.settings | own, env.folder, group=0)
    try:
        run_apart(gateway.wait_until_ready())
        yield replace(env.user, port=port)
    finally:
        gateway.kill()  # else it would wait for transfers that never end


@contextmanager
def _on_s3(env: Environment) -> Iterator[Endpoint]:
    """Another gateway, on the stand-in for S3, with the inputs of jobs and the large file."""
    tree = seed.make_tree(env.folder / "s3", _OTHER)
    with ExitStack() as stack:
        url = stack.enter_context(aws.moto_server())
        aws.create_bucket(url, _BUCKET)
        store = aws.client("s3", url)
        stack.callback(store.close)
        for path in tree.rglob("*.*"):
            key = f"root/{_OTHER}/{path.relative_to(tree)}"
            store.put_object(Bucket=_BUCKET, Key=key, Body=path.read_bytes())
        store.put_object(Bucket=_BUCKET, Key=f"root/{USER}/data/large", Body=bytes(_LARGE))
        place = {"FILESYSTEM": "s3", "S3_BUCKET": _BUCKET, "USER_DATA_ROOT_PATH": "root"}
        yield stack.enter_context(_gateway(env, **place, **aws.environment(url)))


def _job(files_down: dict[str, list[str]]) -> dict[str, Any]:
    attributes = {"files_down": files_down}
    return {
        "job_name": uuid4().hex, "application": seed.APPLICATION, "attributes": attributes,
    }  # fmt: skip


def _submit(ids: list[str]) -> Behaviour:
    async def behave(client: Client) -> None:
        await client.ask(client.endpoint.json("POST", "/jobs", _job({"data_ids": ids})))

    return behave


def _come_and_go(peer: Endpoint) -> Behaviour:
    """A job with a long report, which is read and deleted."""

    async def behave(client: Client) -> None:
        user = client.endpoint
        body = await client.ask(user.json("POST", "/jobs", _job({})))
        number = orjson.loads(body)["id"]
        report = {"job_id": number, "status": "error", "runtime_details": "x" * _LONG}
        await client.ask(peer.json("PUT", "/_job_status", report))
        await client.ask(user.message("GET", f"/jobs/{number}"))
        await client.ask(user.message("DELETE", f"/jobs/{number}"))

    return behave


def _stop_in(target: str) -> Behaviour:
    """Read nothing of a response."""

    async def behave(client: Client) -> None:
        await client.send(client.endpoint.message("GET", target))
        await _stand_still(client)

    return behave


async def _list_anew(client: Client) -> None:
    """A listing that nobody else asks for at the same time."""
    target = f"/files/data/many?recursive=true&limit={1_000_000 + client.number}"
    await client.send(client.endpoint.message("GET", target))
    client.begun.set()
    await client.read()
    client.close()


async def _announce(client: Client) -> None:
    message = client.endpoint.message("POST", "/jobs", b"[", Content_Type="application/json")
    await client.send(message.replace(b"Content-Length: 1", b"Content-Length: 70000"))
    await _stand_still(client)


async def _trickle(client: Client) -> None:
    """Upload so much that it is a part for S3, and then a byte a second."""
    before, _, kind = form_parts("trickled")
    head = {"Content_Type": kind, "Content_Length": str(len(before) + _LARGE)}
    await client.send(client.endpoint.message("POST", "/files/data/slow/upload", None, **head))
    await client.send(before + bytes(300_000))
    client.begun.set()
    while True:
        await asyncio.sleep(1.0)
        await client.send(b"x")


async def _stand_still(client: Client) -> None:
    client.begun.set()
    await asyncio.Event().wait()
