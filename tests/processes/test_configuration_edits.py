"""The application configuration, edited into nonsense under a running gateway."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from deploy.sandbox import aws
from devtools.waiting import eventually
from tests.support.cloud import Answer, Caller, Cloud, on_sqlite
from tests.support.gateway import APPLICATIONS, job_body

GOOD = yaml.safe_dump(APPLICATIONS)
OTHER = yaml.safe_dump({"comet": APPLICATIONS["decode"]})
BUCKET, KEY = "configurations", "applications.yaml"

pytestmark = on_sqlite

NONSENSE: dict[str, bytes] = {
    "nothing": b"",
    "no YAML": b"decode: [",
    "cut off": GOOD.encode()[: len(GOOD) // 2] + b"\n  - {",
    "bytes": bytes(range(256)),
    "a list": b"[decode]",
    "another tool's": b"server: {port: 80}",
    "no command": yaml.safe_dump(
        {"decode": {"v1": {"train": {"app": {}, "handler": {}}}}}
    ).encode(),
    "a number as version": b"decode: {1.0: {}}",
    "deep": b"decode: " + b"[" * 5_000 + b"]" * 5_000,
    "a loop": b"decode: &loop {v1: *loop}",
    "laughs": b"a: &a [x, x, x, x, x, x, x, x]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (name, name, b", ".join([b"*%c" % (name - 1)] * 8))
        for name in range(ord("b"), ord("m"))
    ),
}


def submission(**changes: Any) -> dict[str, Any]:
    return job_body(**{"attributes": {"files_down": {}}, **changes})


WRONG = [
    submission(application={"application": "none", "version": "v1", "entrypoint": "train"}),
    submission(application={"application": "decode", "version": "v9", "entrypoint": "train"}),
    submission(attributes={"files_down": {}, "env_vars": {"NONE": "x"}}),
]


class Watcher:
    """Compares what a gateway answers with what it has answered before."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._shown: list[Any] = []

    async def _ask(self) -> list[Answer]:
        return [
            await self._caller.ask("GET", "/jobs/applications"),
            *[await self._caller.ask("POST", "/jobs", json=body) for body in WRONG],
        ]

    async def note(self) -> None:
        answers = await self._ask()
        assert [answer.status for answer in answers] == [200, 422, 422, 422]
        self._shown = [answer.body for answer in answers]

    async def assert_unchanged(self) -> None:
        answers = await self._ask()
        assert [answer.body for answer in answers] == self._shown
        accepted = await self._caller.ask("POST", "/jobs", json=submission())
        assert accepted.status == 201


async def shows(caller: Caller, application: str) -> bool:
    answer = await caller.ask("GET", "/jobs/applications")
    assert answer.status == 200
    return f'"{application}"' in answer.text


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


async def test_an_edit_into_nonsense_leaves_the_last_good_file_in_force(
    cloud: Cloud,
) -> None:
    path = cloud.applications
    gateway = await cloud.gateway()
    watcher = Watcher(cloud.caller)
    await watcher.note()
    edits: dict[str, Callable[[], object]] = {
        "gone": path.unlink,
        **{
            name: lambda content=content: path.write_bytes(content)
            for name, content in NONSENSE.items()
        },
        "a directory": lambda: replace_by_directory(path),
    }
    for name, edit in edits.items():
        refusals = gateway.output.count("applications.refused")
        edit()
        await watcher.assert_unchanged()
        assert gateway.output.count("applications.refused") > refusals, name
    assert "request.failed" not in gateway.output

    shutil.rmtree(path)
    replacement = path.with_suffix(".new")
    replacement.write_text(OTHER)
    os.replace(replacement, path)
    assert await shows(cloud.caller, "comet")
    assert not await shows(cloud.caller, "decode")


async def test_an_s3_object_that_is_edited_into_nonsense_or_deleted_stays_in_force(
    cloud: Cloud, aws_url: str
) -> None:
    s3 = aws.client("s3", aws_url)
    aws.create_bucket(aws_url, BUCKET)

    def put(content: bytes) -> None:
        s3.put_object(Bucket=BUCKET, Key=KEY, Body=content)

    put(GOOD.encode())
    gateway = await cloud.gateway(
        APPLICATION_CONFIG_FILE=f"s3://{BUCKET}/{KEY}", **aws.environment(aws_url)
    )
    watcher = Watcher(cloud.caller)
    await watcher.note()

    async def is_refused(reason: str) -> bool:
        await watcher.assert_unchanged()
        return any(
            reason in line
            for line in gateway.output.splitlines()
            if '"event":"applications.refused"' in line
        )

    await asyncio.to_thread(put, b"decode: [")
    await eventually(lambda: is_refused("not YAML"), within=10)
    await asyncio.to_thread(s3.delete_object, Bucket=BUCKET, Key=KEY)
    await eventually(lambda: is_refused("NoSuchKey"), within=10)
    await asyncio.to_thread(put, OTHER.encode())
    await eventually(lambda: shows(cloud.caller, "comet"), within=10)
    assert "request.failed" not in gateway.output
    s3.close()
