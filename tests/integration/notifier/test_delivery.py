from typing import Any

import pytest
from aiohttp import web

from common.database.engine import Database, utc_now
from common.database.tables import emails
from deploy.sandbox.ports import free_port
from devtools.waiting import eventually
from tests.integration.notifier.conftest import Notify
from tests.support.fakes import abort
from tests.support.metrics import metric
from tests.support.notifier import SECRET_KEY, FakeMailjet
from tests.support.records import add_job, add_mail, outbox_row, rows, states, until


async def add_mails(database: Database, count: int) -> list[str]:
    """Mails to as many recipients; returns their addresses."""
    addresses = [f"user{number}@example.org" for number in range(count)]
    for address in addresses:
        await add_mail(database, recipient=address)
    return addresses


async def test_a_mail_names_job_id_status_and_details(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    job_id = await add_job(database, job_name="train", runtime_details="out of memory & time")
    await add_mail(database, job_id, kind="error", custom_id="c" * 32)
    async with notify():
        await until(database, emails, done=1)
    (mail,) = mailjet.sent
    assert mail["From"].pop("Name")
    assert "out of memory & time" in mail.pop("TextPart")
    assert "out of memory &amp; time" in mail.pop("HTMLPart")
    assert mail == {
        "From": {"Email": "cloud@example.org"},
        "To": [{"Email": "ada@example.org"}],
        "Subject": f"Job train (id={job_id}) error",
        "CustomID": "c" * 32,
        "Headers": {"X-Correlation-ID": f"correlation-{job_id}"},
    }


async def test_a_backlog_leaves_in_batches_and_once(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    addresses = await add_mails(database, 120)
    async with notify():
        await until(database, emails, done=120)
    assert sorted(mailjet.recipients) == sorted(addresses)
    assert max(map(len, mailjet.requests)) == 50
    assert len(mailjet.requests) <= 5


async def test_of_a_batch_with_bad_recipients_only_those_fail(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    addresses = await add_mails(database, 50)
    mailjet.bad = {addresses[0], addresses[20], addresses[49]}
    async with notify():
        await until(database, emails, done=47, failed=3)
    assert len(mailjet.requests) == 1
    assert sorted(mailjet.recipients) == sorted(set(addresses) - mailjet.bad)
    failed = [row for row in await rows(database, emails) if row["state"] == "failed"]
    assert {row["recipient"] for row in failed} == mailjet.bad
    assert all("invalid email address" in row["last_error"] for row in failed)


async def test_a_batch_that_is_refused_as_a_whole_is_sent_one_by_one(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    addresses = await add_mails(database, 10)
    poisoned = addresses[3]

    async def refuse(_: web.Request, messages: list[Any]) -> web.StreamResponse | None:
        if poisoned in [message["To"][0]["Email"] for message in messages]:
            return web.json_response({"ErrorMessage": "malformed"}, status=400)
        return None

    mailjet.behave = refuse
    async with notify():
        await until(database, emails, done=9, failed=1)
    assert sorted(mailjet.recipients) == sorted(set(addresses) - {poisoned})


@pytest.mark.parametrize("count", [1, 120])
async def test_a_wrong_key_holds_every_mail_until_it_is_right(
    database: Database,
    mailjet: FakeMailjet,
    notify: Notify,
    capsys: pytest.CaptureFixture[str],
    count: int,
) -> None:
    await add_mails(database, count)
    mailjet.secret_key = "another"
    async with notify():
        await eventually(lambda: len(mailjet.requests) >= 4)  # the batches, then trials
        assert len(mailjet.requests) <= 20
        assert "failed" not in await states(database, emails)
        mailjet.secret_key = SECRET_KEY
        await until(database, emails, done=count, within=20)
    assert len(mailjet.sent) == count
    said = capsys.readouterr().out
    assert "peer.regained" in said
    # a single one has shown by itself that the key is right
    assert ("mails.released" in said) is (count > 1)


async def test_a_mailjet_that_is_away_gets_every_mail_on_its_return(
    database: Database, notify: Notify
) -> None:
    await add_mails(database, 20)
    port = free_port()
    async with notify(f"http://127.0.0.1:{port}"):
        await eventually(lambda: _was_tried(database))
        assert await states(database, emails) == ["pending"] * 20
        async with FakeMailjet().served(port) as mailjet:
            await until(database, emails, done=20)
            assert len(mailjet.sent) == 20


async def _was_tried(database: Database) -> bool:
    return all(row["last_error"] for row in await rows(database, emails))


def lose_answers(mailjet: FakeMailjet, times: int, *, sent: bool) -> None:
    """The next answers are lost, whether the mails are sent or not."""

    async def behave(request: web.Request, messages: list[Any]) -> web.StreamResponse | None:
        if len(mailjet.requests) > times:
            return None
        for message in messages * sent:
            mailjet.deliver(message)
        return abort(request)

    mailjet.behave = behave


@pytest.mark.parametrize("sent", [True, False])
async def test_a_mail_whose_answer_was_lost_is_looked_up_and_sent_again_if_mailjet_denies_it(
    database: Database, mailjet: FakeMailjet, notify: Notify, sent: bool
) -> None:
    await add_mails(database, 1)
    lose_answers(mailjet, 1, sent=sent)
    async with notify():
        await until(database, emails, done=1)
    assert (len(mailjet.sent), len(mailjet.lookups)) == (1, 1)
    assert len(mailjet.requests) == (1 if sent else 2)


async def test_with_a_look_up_that_finds_nothing_there_is_at_most_one_duplicate(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    await add_mails(database, 1)
    mailjet.finds = False
    lose_answers(mailjet, 1_000, sent=True)
    async with notify(lookup_wait=0.5):
        await eventually(lambda: len(mailjet.lookups) >= 4, within=20)
    assert len(mailjet.sent) == 2
    assert await states(database, emails) == ["in_doubt"]


@pytest.mark.parametrize("state", ["pending", "sending", "in_doubt", "held"])
async def test_without_a_sender_mails_fail_instead_of_piling_up(
    database: Database, notify: Notify, state: str
) -> None:
    left = utc_now(-1.0) if state == "sending" else None
    job_id = await add_mail(database, state=state, owner=None, leased_until=left)
    before = metric("opencloud_mails_total", verdict="discarded")
    async with notify(mailjet=None, lookup_wait=0.5):
        await eventually(lambda: metric("opencloud_mails_total", verdict="discarded") > before)
    row = await outbox_row(database, emails, job_id)
    assert (row["state"], row["last_error"]) == ("failed", "no e-mail sender is configured")
    assert metric("opencloud_mail_gate", state="closed") == 1  # no alert for a lost peer


async def test_a_lease_that_has_run_out_is_counted(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    await add_mail(database, state="sending", leased_until=utc_now(-1.0), owner="killed")
    before = metric("opencloud_mail_leases_expired_total")
    async with notify():
        await until(database, emails, done=1)
    assert metric("opencloud_mail_leases_expired_total") == before + 1
