"""A tree of very many small files: what others notice while one user works on all of it."""

import http.client
import threading
import time
from collections.abc import Iterator
from typing import Any, Final, Self
from uuid import uuid4

import orjson

from benchmarks import seed
from benchmarks.figures import Figure, Floor, Result, percentile
from benchmarks.messages import Caller
from benchmarks.processes import Child, ToolFailed
from benchmarks.s3_stage import S3Stage, gateway_on_s3
from benchmarks.stage import Stage
from devtools import proc

_GROUP: Final = "Worst wait for GET / and GET /jobs while another request is at a large tree"
_SIZE: Final = 1024
_IN_EACH: Final = 1_000
_IDLE: Final = 1.0
_PAUSE: Final = 0.005
_PATIENCE: Final = 600


def local(stage: Stage) -> Iterator[Result]:
    """a tree of 100 000 files is listed, packed, taken as a job's input and deleted"""
    count = stage.options.tree_files
    for folder, names in _folders(count):
        seed.add_files(stage.tree / "data" / "tree" / folder, names, _SIZE)
    yield from _work(stage.gateway, stage.user, f"{_shown(count)} files")


def on_s3(stage: Stage) -> Iterator[Result]:
    """the same with 10 000 files on S3"""
    count = stage.options.tree_files // 10
    with gateway_on_s3(stage) as s3:
        _fill(s3, count)
        yield from _work(s3.gateway, s3.user, f"{_shown(count)} files on S3")


def _shown(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _folders(count: int) -> Iterator[tuple[str, list[str]]]:
    for start in range(0, count, _IN_EACH):
        numbers = range(start, min(start + _IN_EACH, count))
        yield f"{start:06d}", [f"frame_{number:06d}.tif" for number in numbers]


def _fill(s3: S3Stage, count: int) -> None:
    connection = http.client.HTTPConnection(s3.store.host, s3.store.port, timeout=_PATIENCE)
    paths = [f"data/tree/{folder}/{name}" for folder, names in _folders(count) for name in names]
    for path in ("config/exp1/param.yaml", *paths):
        connection.request("PUT", s3.place(path), bytes(_SIZE))
        connection.getresponse().read()
    connection.close()


def _work(gateway: Child, user: Caller, what: str) -> Iterator[Result]:
    files_down = {"config_id": "exp1", "data_ids": ["tree"]}
    job = {
        "job_name": uuid4().hex,
        "application": seed.APPLICATION,
        "attributes": {"files_down": files_down},
    }
    _send(user, "GET", "/files/")
    with _Others(user) as others:
        time.sleep(_IDLE)
    idle = Floor(name="idle", figure=others.figure())
    for name, method, target, body in (
        (f"listing of {what}", "GET", "/files/data/tree?recursive=true", None),
        (
            f"page of 100 of {what}",
            "GET",
            "/files/?recursive=true&limit=100&after=data/tree/",
            None,
        ),
        (f"zip of {what}", "GET", "/files/data/tree/download", None),
        (f"job with {what}", "POST", "/jobs", job),
        (f"deletion of {what}", "DELETE", "/files/data/tree/", None),
    ):
        rest = proc.resident_mib(gateway.pid)
        proc.reset_peak([gateway.pid])
        with _Others(user) as others:
            taken = _repeat(user, method, target, body)
        yield Result(
            group=_GROUP,
            name=name,
            figure=others.figure(),
            floors=(idle,),
            peak=proc.peak_mib([gateway.pid]),
            note=f"took {taken:.2f} s; p99 of the others {others.slow * 1000:.1f} ms;"
            f" memory before {rest:.0f} MiB",
        )


def _repeat(user: Caller, method: str, target: str, body: Any) -> float:
    """Seconds for one such request; those that change nothing are sent for a while."""
    began, count = time.monotonic(), 0
    while not count or (method == "GET" and time.monotonic() - began < _IDLE):
        _send(user, method, target, body)
        count += 1
    return (time.monotonic() - began) / count


def _send(user: Caller, method: str, target: str, body: Any = None) -> None:
    """One request, its answer read and forgotten. Raises `ToolFailed` if it is refused."""
    connection = http.client.HTTPConnection(user.host, user.port, timeout=_PATIENCE)
    headers = {**user.headers, "Content-Type": "application/json"}
    connection.request(method, target, body and orjson.dumps(body), headers)
    answer = connection.getresponse()
    buffer = bytearray(1 << 20)
    while answer.readinto(buffer):
        pass
    connection.close()
    if answer.status >= 400:
        raise ToolFailed(f"{method} {target} was answered {answer.status}")


class _Others(threading.Thread):
    """Other clients, two of them in turns, for as long as the context lasts."""

    def __init__(self, user: Caller) -> None:
        super().__init__(daemon=True)
        self._user = user
        self._over = threading.Event()
        self._latencies: list[float] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._user.host, self._user.port)
        while not self._over.wait(_PAUSE):
            for target in ("/", "/jobs"):
                began = time.monotonic()
                connection.request("GET", target, headers=dict(self._user.headers))
                connection.getresponse().read()
                self._latencies.append(time.monotonic() - began)
        connection.close()

    @property
    def slow(self) -> float:
        return percentile(self._latencies, 0.99)

    def figure(self) -> Figure:
        return Figure(value=max(self._latencies, default=0.0) * 1000, unit="ms")
