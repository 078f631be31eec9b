"""The Mailjet stand-in responds as Mailjet does, and shows the mails."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from deploy.sandbox.mailjet import MAILJET, Mailjet, MailjetSettings, create_app
from devtools.waiting import eventually
from tests.tools.sandbox.support import Standin


def mail(to: str = "user@example.com", custom_id: str = "job-1", **parts: Any) -> dict[str, Any]:
    return {
        "From": {"Email": "no-reply@example.com", "Name": "DECODE OpenCloud"},
        "To": [{"Email": to}],
        "Subject": "Job train (id=1) finished",
        "TextPart": "Your job has finished.",
        "CustomID": custom_id,
        **parts,
    }


class RunningMailjet(Standin[Mailjet]):
    headers: ClassVar = {"Authorization": aiohttp.encode_basic_auth("key", "secret")}

    async def send(self, *mails: dict[str, Any]) -> tuple[int, Any]:
        return await self.call("POST", "/v3.1/send", json={"Messages": mails})

    async def count(self, custom_id: str = "job-1") -> int:
        _, found = await self.call("GET", f"/v3/REST/message?CustomID={custom_id}")
        return int(found["Count"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mails.jsonl"


@pytest.fixture
async def mailjet(file: Path, session: aiohttp.ClientSession) -> AsyncIterator[RunningMailjet]:
    async with TestServer(create_app(MailjetSettings(file=file))) as server:
        yield RunningMailjet(server, MAILJET, session)


async def test_a_mail_is_sent_and_found_by_its_custom_id(mailjet: RunningMailjet) -> None:
    status, answer = await mailjet.send(mail())
    assert status == 200
    (message,) = answer["Messages"]
    assert (message["Status"], message["CustomID"]) == ("success", "job-1")
    assert message["To"][0]["Email"] == "user@example.com"
    _, found = await mailjet.call("GET", "/v3/REST/message?CustomID=job-1")
    assert (found["Count"], found["Data"][0]["ID"]) == (1, message["To"][0]["MessageID"])
    _, none = await mailjet.call("GET", "/v3/REST/message?CustomID=job-2")
    assert none == {"Count": 0, "Data": [], "Total": 0}


async def test_without_keys_nothing_is_sent(mailjet: RunningMailjet) -> None:
    body = {"Messages": [mail()]}
    status, answer = await mailjet.call("POST", "/v3.1/send", json=body, headers={})
    assert (status, answer["StatusCode"]) == (401, 401)
    assert len(mailjet.state.mails) == 0


@pytest.mark.parametrize("address", ["nobody", "x@bounce.invalid", "@example.com", "a b@c.de"])
async def test_a_bad_recipient_fails_alone(mailjet: RunningMailjet, address: str) -> None:
    status, answer = await mailjet.send(mail(), mail(to=address, custom_id="bad"), mail())
    assert status == 400
    assert [one["Status"] for one in answer["Messages"]] == ["success", "error", "success"]
    (error,) = answer["Messages"][1]["Errors"]
    assert error["ErrorRelatedTo"] == ["To[0].Email"]
    assert set(error) == {
        "ErrorIdentifier", "ErrorCode", "StatusCode", "ErrorMessage", "ErrorRelatedTo",
    }  # fmt: skip
    assert len(mailjet.state.mails) == 2


@pytest.mark.parametrize(
    ("parts", "related"),
    [
        ({"From": {}}, "From.Email"),
        ({"To": []}, "To"),
        ({"TextPart": ""}, "TextPart"),
        ({"Subject": 3}, "Subject"),
    ],
)
async def test_a_malformed_message_is_refused_naming_the_property(
    mailjet: RunningMailjet, parts: dict[str, Any], related: str
) -> None:
    status, answer = await mailjet.send(mail(**parts))
    assert status == 400
    assert related in answer["Messages"][0]["Errors"][0]["ErrorRelatedTo"]


async def test_more_than_fifty_messages_are_refused_together(mailjet: RunningMailjet) -> None:
    assert (await mailjet.send(*[mail()] * 50))[0] == 200
    assert (await mailjet.send(*[mail()] * 51))[0] == 400
    assert len(mailjet.state.mails) == 50


async def test_a_restart_keeps_the_mails(
    mailjet: RunningMailjet, file: Path, session: aiohttp.ClientSession
) -> None:
    await mailjet.send(mail(), mail(custom_id="job-2"))
    async with TestServer(create_app(MailjetSettings(file=file))) as server:
        after = RunningMailjet(server, MAILJET, session)
        _, mails = await after.call("GET", "/_mails")
        assert [one["custom_id"] for one in mails] == ["job-1", "job-2"]
        _, answer = await after.send(mail())
        assert answer["Messages"][0]["To"][0]["MessageID"] == 3


async def test_the_look_up_can_lag(mailjet: RunningMailjet) -> None:
    await mailjet.faults(lookup_lag=3600)
    await mailjet.send(mail())
    assert await mailjet.count() == 0
    await mailjet.call("DELETE", "/_faults")
    assert await mailjet.count() == 1


async def test_the_connection_can_break_after_the_mail_was_accepted(
    mailjet: RunningMailjet,
) -> None:
    await mailjet.faults({"fault": "drop_after", "names": "job-1"})
    with pytest.raises(aiohttp.ClientConnectionError):
        await mailjet.send(mail())
    assert len(mailjet.state.mails) == 1
    assert (await mailjet.send(mail(custom_id="job-2")))[0] == 200


async def test_waiting_for_a_mail_ends_when_it_comes(mailjet: RunningMailjet) -> None:
    waiting = asyncio.create_task(mailjet.call("GET", "/_mails?to=user@example.com&wait=30"))
    await eventually(lambda: mailjet.state.counts["listed"])
    await mailjet.send(mail(to="other@example.com"), mail())
    _, mails = await asyncio.wait_for(waiting, 15)
    assert [one["to"][0]["Email"] for one in mails] == ["user@example.com"]


async def test_the_page_shows_mails_newest_first_and_runs_nothing_of_theirs(
    mailjet: RunningMailjet,
) -> None:
    evil = "<script>alert(1)</script>"
    await mailjet.send(mail(Subject="older"), mail(Subject=evil, HTMLPart=f'"><b>{evil}</b>'))
    status, page = await mailjet.call("GET", "/")
    assert status == 200
    assert evil not in page
    assert page.index("&lt;script&gt;") < page.index("older")
    assert 'sandbox="" title="HTML part" srcdoc="&quot;&gt;&lt;b&gt;&lt;script' in page
    _, chosen = await mailjet.call("GET", "/mails/1")
    assert "<h2>older</h2>" in chosen
    assert (await mailjet.call("GET", "/mails/9"))[0] == 404
