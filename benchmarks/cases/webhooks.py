"""Messages to webhooks: deliveries per second, and how little dead receivers matter."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from benchmarks import seed
from benchmarks.baselines import submissions
from benchmarks.environment import Environment
from benchmarks.isolation import measured_apart
from benchmarks.measure import wait_until
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Baseline, Result, Sample, milliseconds
from deploy.sandbox.ports import LOOPBACK
from devtools import proc

_RECEIVERS: Final = 1_000
_DEAD: Final = 300
"""Of the receivers; the published schedule tries them again later."""


@benchmark("webhooks", Scope.POSTGRESQL)
def webhooks(env: Environment) -> Iterator[Result]:
    """messages delivered per second by one notifier, and with dead receivers among others"""
    group = f"Messages to webhooks on {env.database.title}"
    alive = f"{env.standins_url}/_jobs"
    with env.notifier() as notifier:
        yield _throughput(env, group, alive, notifier.pid)
        yield from _among_dead(env, group, alive, notifier.pid)
    secure = f"{env.standins_tls_url}/_jobs"
    with env.notifier() as notifier:  # no dead receivers occupy this one
        _throughput(env, group, alive, notifier.pid)  # to warm it up
        yield from _among_dead(env, f"{group}, over TLS", secure, notifier.pid)


def _throughput(env: Environment, group: str, alive: str, pid: int) -> Result:
    count = env.options.forwarded
    seed.add_webhooks(env.database, [alive] * _RECEIVERS)
    before = proc.cpu_seconds([pid])
    proc.reset_peak([pid])
    _send(env, count)
    summary = wait_until(lambda: _arrived(env, count), f"{count} messages did not arrive")
    _wait_until_settled(env)
    delivered = Sample(
        count=count - 1,  # from the first arrival to the last
        seconds=summary["last"] - summary["first"],
        cpu_seconds=proc.cpu_seconds([pid]) - before,
    )
    bare = measured_apart(submissions.submit, env.standins_url, count)
    baseline = Baseline("the same POSTs, no database", bare.per_second())
    name = f"to {_RECEIVERS} receivers, by one notifier"
    return Result(group, name, delivered.per_second(), (baseline,), proc.peak_mib([pid]))


def _among_dead(env: Environment, group: str, alive: str, pid: int) -> Iterator[Result]:
    """One message to each receiver, at once; the dead ones accept connections, and say nothing."""
    with closing(socket.create_server((LOOPBACK, 0), backlog=4 * _DEAD)) as silent:
        dead = f"http://{LOOPBACK}:{silent.getsockname()[1]}/"
        urls = [dead if n % 10 < _DEAD * 10 // _RECEIVERS else alive for n in range(_RECEIVERS)]
        seed.add_webhooks(env.database, urls)
        before, sent = proc.cpu_seconds([pid]), time.monotonic()
        _send(env, _RECEIVERS)
        wait_until(lambda: _arrived(env, _RECEIVERS - _DEAD), "the others' messages did not arrive")
        busy = 1_000 * (proc.cpu_seconds([pid]) - before)
        waits = [at - sent for at in env.ask_standins("/arrivals").values()]
    for part in (0.5, 0.99):
        note = f"{_DEAD} of {_RECEIVERS} hang; must: 1 000 ms; {busy:.0f} ms of processor time"
        yield Result(
            group,
            f"a message to each receiver at once, those that are alive: p{part * 100:.0f}",
            milliseconds(waits, part),
            note=note,
        )


def _send(env: Environment, count: int) -> None:
    env.ask_standins("/arrivals", "DELETE")
    seed.add_messages(env.database, count)
    env.database.execute("NOTIFY opencloud_webhooks")


def _arrived(env: Environment, count: int) -> dict[str, Any]:
    summary: dict[str, Any] = env.ask_standins("/summary")
    return summary if summary["count"] >= count else {}


def _wait_until_settled(env: Environment) -> None:
    unsettled = "SELECT count(*) FROM webhook_deliveries WHERE settled_at IS NULL"
    wait_until(lambda: not env.database.fetch(unsettled)[0][0], "deliveries were not settled")
