"""The application configuration, edited into nonsense under a running gateway."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml

from deploy.sandbox import aws
from devtools.waiting import eventually
from tests.support.cloud import Caller, Cloud, on_sqlite
from tests.support.gateway import APPLICATIONS, job_body

GOOD = yaml.safe_dump(APPLICATIONS).encode()
OTHER = yaml.safe_dump({"comet": APPLICATIONS["decode"]}).encode()
BUCKET, KEY = "configurations", "applications.yaml"

pytestmark = on_sqlite

NONSENSE: dict[str, bytes] = {
    "no YAML": b"decode: [",
    "cut off": GOOD[: len(GOOD) // 2] + b"\n  - {",
    "bytes": bytes(range(256)),
    "another tool's": b"server: {port: 80}",
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


async def answers(caller: Caller) -> list[bytes]:
    """What the gateway says of its applications, and of submissions that do not fit them."""
    found = [
        await caller.ask("GET", "/jobs/applications"),
        *[await caller.ask("POST", "/jobs", json=body) for body in WRONG],
    ]
    assert [answer.status for answer in found] == [200, 422, 422, 422]
    assert (await caller.ask("POST", "/jobs", json=submission())).status == 201
    return [answer.body for answer in found]


async def shows(caller: Caller, application: str) -> bool:
    return f'"{application}"' in (await caller.ask("GET", "/jobs/applications")).text


async def test_an_invalid_edit_leaves_the_last_valid_file_in_force(cloud: Cloud) -> None:
    path = cloud.applications
    gateway = await cloud.gateway()
    before = await answers(cloud.caller)
    edits: dict[str, Callable[[], object]] = {
        "gone": path.unlink,
        **{name: partial(path.write_bytes, content) for name, content in NONSENSE.items()},
    }
    for name, edit in edits.items():
        refusals = gateway.output.count("applications.refused")
        edit()
        assert await answers(cloud.caller) == before
        assert gateway.output.count("applications.refused") > refusals, name
    replacement = path.with_suffix(".new")
    replacement.write_bytes(OTHER)
    os.replace(replacement, path)
    assert await shows(cloud.caller, "comet")
    assert not await shows(cloud.caller, "decode")
    assert "request.failed" not in gateway.output


async def test_an_invalid_edit_or_deletion_of_an_s3_object_leaves_it_in_force(
    cloud: Cloud, aws_url: str
) -> None:
    s3 = aws.client("s3", aws_url)
    aws.create_bucket(aws_url, BUCKET)
    place = {"Bucket": BUCKET, "Key": KEY}
    s3.put_object(**place, Body=GOOD)
    location = f"s3://{BUCKET}/{KEY}"
    gateway = await cloud.gateway(APPLICATION_CONFIG_FILE=location, **aws.environment(aws_url))
    before = await answers(cloud.caller)

    async def is_refused(reason: str) -> bool:
        assert await answers(cloud.caller) == before
        return any(
            reason in line
            for line in gateway.output.splitlines()
            if '"event":"applications.refused"' in line
        )

    await asyncio.to_thread(s3.put_object, **place, Body=b"decode: [")
    await eventually(lambda: is_refused("not YAML"))
    await asyncio.to_thread(s3.delete_object, **place)
    await eventually(lambda: is_refused("NoSuchKey"))
    await asyncio.to_thread(s3.put_object, **place, Body=OTHER)
    await eventually(lambda: shows(cloud.caller, "comet"))
    assert "request.failed" not in gateway.output
    s3.close()
