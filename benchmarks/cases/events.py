"""Streams of events: how late a change reaches them, and what an open one costs."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from benchmarks import seed, streams
from benchmarks.environment import Environment
from benchmarks.isolation import ToolFailed, in_own_process
from benchmarks.measure import load_of, run_load
from benchmarks.messages import COUNTER, Endpoint
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Figure, Result, grouped, milliseconds
from deploy.sandbox.ports import LOOPBACK
from devtools import proc
from devtools.postgres import run_apart

_RATE: Final = 500.0
_TIMEOUT: Final = 60.0


@benchmark("events", Scope.EACH)
def events(env: Environment) -> Iterator[Result]:
    """from a worker's update until 1 000 streams of events have it"""
    count = env.options.streams
    for each in (1, min(10, count)):
        yield from _measure(env, users=count // each, each=each)


def _measure(env: Environment, *, users: int, each: int) -> Iterator[Result]:
    """Updates of one job of each user, who has `each` streams."""
    names = [f"follower-{each}-{number}" for number in range(users)]
    ids = seed.add_jobs(
        env.database, users, user=f"'follower-{each}-' || (n - 1)", prefix=f"followed_{each}",
        status="running",
    )  # fmt: skip
    # each with details of its own, and so an event in any order
    update = {"status": "running", "runtime_details": COUNTER.decode()}
    requests = [env.peer.json("PUT", "/_job_status", {"job_id": id_, **update}) for id_ in ids]
    tokens = [env.pool.token(name) for name in names for _ in range(each)]
    endpoint = Endpoint(LOOPBACK, env.gateway_port)
    expected = int(_RATE * env.options.seconds) * each
    before = proc.resident_mib(env.gateway.pid)
    with ThreadPoolExecutor() as pool:
        following = pool.submit(in_own_process, streams.follow, endpoint, tokens, expected)
        _wait_until_open(env, len(tokens))
        grown = proc.resident_mib(env.gateway.pid) - before
        sent = run_load(load_of(env, env.peer, requests, rate=_RATE), env.gateway)
        latencies = following.result()
    if len(latencies) < min(expected, sent.count * each):
        raise ToolFailed(f"{len(latencies)} of {sent.count * each} events arrived")
    group = f"From a worker's update to {grouped(len(tokens))} streams on {env.database.title}"
    shape = f"{grouped(users)} users × {each}, {_RATE:.0f} updates/s"
    aim = "aim: 1 000 ms" if env.database.is_sqlite else "aim: 200 ms"
    processor = sent.per_second().cpu  # the update included
    for part in (0.5, 0.99):
        late = replace(milliseconds(latencies, part), cpu=processor)
        note = f"{grouped(len(latencies))} events; {aim}" if part > 0.5 else ""
        yield Result(group, f"{shape}: p{part * 100:.0f}", late, note=note)
    if each == 1:  # memory that is free afterwards is used again
        memory = Figure(max(0.0, 1024 * grown / len(tokens)), "KiB")
        yield Result(group, f"{shape}: memory of a stream", memory, note="aim: 50 KiB")


def _wait_until_open(env: Environment, count: int) -> None:
    give_up = time.monotonic() + _TIMEOUT
    while run_apart(env.gateway.metric("opencloud_event_streams")) < count:
        if time.monotonic() > give_up:
            raise ToolFailed(f"{count} streams did not open within {_TIMEOUT:g} s")
        time.sleep(0.1)
