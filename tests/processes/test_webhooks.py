"""Webhooks from the API to a receiver, through real processes."""

import asyncio
import json
from typing import Any

from devtools.waiting import eventually
from tests.support.cloud import Cloud
from tests.support.webhooks import KEY, Message, Receiver

SETTINGS = {"WEBHOOK_KEY": KEY, "WEBHOOK_ALLOW_PRIVATE": "true"}


async def ask(cloud: Cloud, method: str, path: str, status: int, **parts: Any) -> Any:
    answer = await cloud.caller.ask(method, path, **parts)
    assert answer.status == status, answer.text
    return json.loads(answer.body)


async def arrived(receiver: Receiver, count: int) -> list[Message]:
    await eventually(lambda: len(receiver.got) >= count, within=60)
    assert len(receiver.got) == count
    return list(receiver.got)


async def test_a_job_is_announced_to_a_receiver_that_verifies_it(cloud: Cloud) -> None:
    await cloud.gateway(**SETTINGS)
    notifier = cloud.notifier(**SETTINGS)
    async with Receiver().served() as receiver:
        wanted = {"url": f"{receiver.url}/hook", "events": ["finished", "status"]}
        hook = await ask(cloud, "POST", "/webhooks", 201, json=wanted)
        target = f"/webhooks/{hook['id']}"
        status, job_id = await cloud.caller.submit("train")
        assert status == 201
        for report in ("running", "finished"):
            await cloud.caller.report(job_id, report)
        messages = await arrived(receiver, 4)
        assert all(message.is_signed_by(hook["secret"]) for message in messages)
        bodies = [json.loads(message.body) for message in messages]
        assert [(body["type"], body["data"]["status"]) for body in bodies] == [
            ("job.status", "queued"),
            ("job.status", "running"),
            ("job.status", "finished"),
            ("job.finished", "finished"),
        ]
        assert bodies[-1]["data"] == await ask(cloud, "GET", f"/jobs/{job_id}", 200)

        rotated = await ask(cloud, "POST", f"{target}/rotate", 200)
        await ask(cloud, "POST", f"{target}/test", 202)
        test = (await arrived(receiver, 5))[-1]
        assert (json.loads(test.body)["type"], json.loads(test.body)["data"]) == (
            "webhook.test",
            {},
        )
        assert test.is_signed_by(hook["secret"])
        assert test.is_signed_by(rotated["secret"])

        await ask(cloud, "POST", f"{target}/deliveries/{messages[-2].id}/redeliver", 202)
        again = (await arrived(receiver, 6))[-1]
        assert (again.id, again.body) == (messages[-2].id, messages[-2].body)

        async def all_taken() -> Any:
            found = await ask(cloud, "GET", f"{target}/deliveries", 200)
            return all(one["next_attempt"] is None for one in found) and found

        found = await eventually(all_taken)
        assert [(one["event"], one["last_status"]) for one in found] == [
            ("webhook.test", 204),
            ("job.finished", 204),
            *[("job.status", 204)] * 3,
        ]
        assert hook["secret"] not in notifier.output
        assert await asyncio.wait_for(notifier.terminate(), 60) == 0
