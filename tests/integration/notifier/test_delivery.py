from typing import Any

import pytest
from aiohttp import web

from common.database.engine import Database, utc_now
from common.database.tables import emails, job_labels, jobs
from common.jobs.digest import gather, write_digest
from common.notifications.choices import Choice, write_choice
from common.notifications.suppression import suppress
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
        await until(database, emails, done=count)
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
        await eventually(lambda: len(mailjet.lookups) >= 4)
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


async def choose(database: Database, choice: Choice) -> None:
    async with database.transaction() as tx:
        await write_choice(tx, "ada", choice)


async def test_mails_that_wait_when_their_user_chooses_none_are_not_sent(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    unwanted = await add_mail(database)
    wanted = await add_job(database, status="finished", notify="all")
    await add_mail(database, wanted)
    await add_mail(database, await add_job(database, user_id="eve"))
    await choose(database, Choice.NONE)
    before = metric("opencloud_mails_total", verdict="dropped")
    async with notify():
        await until(database, emails, done=2, dropped=1)
    row = await outbox_row(database, emails, unwanted)
    assert row["last_error"] == "the user has chosen to get no mails"
    assert metric("opencloud_mails_total", verdict="dropped") == before + 1


@pytest.mark.parametrize("choice", [Choice.ERRORS, Choice.LAST])
async def test_mails_that_wait_are_sent_whatever_else_their_user_chooses(
    database: Database, mailjet: FakeMailjet, notify: Notify, choice: Choice
) -> None:
    await add_mail(database)
    await choose(database, choice)
    async with notify():
        await until(database, emails, done=1)


async def test_an_address_that_bounced_gets_no_mail_and_the_others_of_its_batch_do(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    addresses = await add_mails(database, 5)
    async with database.transaction() as tx:
        await suppress(tx, addresses[0].upper(), "bounced for good")
        await suppress(tx, addresses[2], "reported as spam by its reader")
    async with notify():
        await until(database, emails, done=3, dropped=2)
    assert sorted(mailjet.recipients) == [addresses[1], addresses[3], addresses[4]]
    assert len(mailjet.requests) == 1
    (row, *_) = await rows(database, emails)
    assert row["last_error"] == "the address gets no mails: bounced for good"


async def test_a_mail_that_is_not_wanted_lets_the_next_one_try_a_peer_that_was_away(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    (address,) = await add_mails(database, 1)
    async with database.transaction() as tx:
        await suppress(tx, address, "bounced for good")
    await add_mail(database, state="held")
    mailjet.secret_key = "another"
    async with notify():
        await eventually(lambda: len(mailjet.requests) >= 2)
        mailjet.secret_key = SECRET_KEY
        await until(database, emails, done=1, dropped=1)


async def add_digest(database: Database, *statuses: str) -> list[int]:
    job_ids = [
        await add_job(database, job_name=f"job{n}", status=s) for n, s in enumerate(statuses)
    ]
    async with database.transaction() as tx:
        for job_id in job_ids:
            await gather(tx, "ada", job_id)
        assert await write_digest(tx, "ada")
    return job_ids


async def test_a_digest_names_its_jobs_and_is_one_mail(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    first, second, third = await add_digest(database, "finished", "error", "finished")
    async with database.transaction() as tx:
        await tx.execute(jobs.delete().where(jobs.c.id == third))
    async with notify(public_url="https://api.example.org", notification_keys=("key",)):
        await until(database, emails, done=1)
    (mail,) = mailjet.sent
    assert mail["Subject"] == "2 jobs have ended: 1 error, 1 finished"
    for part in (mail["TextPart"], mail["HTMLPart"]):
        assert "job0" in part
        assert "job1" in part
    assert f"job1 (id={second}) error" in mail["TextPart"]
    assert mail["Headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert first


@pytest.mark.parametrize("since", [{"status": "queued"}, {"cancelled_at": utc_now()}])
async def test_a_digest_leaves_out_jobs_whose_end_was_undone(
    database: Database, mailjet: FakeMailjet, notify: Notify, since: dict[str, Any]
) -> None:
    undone, _ = await add_digest(database, "error", "finished")
    async with database.transaction() as tx:
        await tx.execute(jobs.update().where(jobs.c.id == undone).values(since))
    async with notify():
        await until(database, emails, done=1)
    assert mailjet.sent[0]["Subject"] == "1 job has ended: 1 finished"


async def test_a_digest_of_more_jobs_than_it_names_counts_them_all(
    database: Database, mailjet: FakeMailjet, notify: Notify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.compose.MAX_NAMED", 2)
    await add_digest(database, *["finished"] * 5)
    async with notify():
        await until(database, emails, done=1)
    assert mailjet.sent[0]["Subject"] == "5 jobs have ended: 5 finished"
    assert "job1" in mailjet.sent[0]["TextPart"]
    assert "job2" not in mailjet.sent[0]["TextPart"]
    assert "and 3 more" in mailjet.sent[0]["TextPart"]


async def test_a_digest_whose_jobs_are_all_deleted_is_not_sent(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    await add_digest(database, "finished")
    async with database.transaction() as tx:
        await tx.execute(jobs.delete())
    async with notify():
        await until(database, emails, dropped=1)
    assert mailjet.requests == []


async def test_a_mail_holds_labels_application_and_times_of_its_job(
    database: Database, mailjet: FakeMailjet, notify: Notify
) -> None:
    job_id = await add_job(database, date_started=utc_now(), date_finished=utc_now())
    async with database.transaction() as tx:
        label = {"key": "exp", "value": "7", "user_id": "ada"}
        await tx.execute(job_labels.insert().values(job_id=job_id, **label))
    await add_mail(database, job_id)
    async with notify():
        await until(database, emails, done=1)
    text = mailjet.sent[0]["TextPart"]
    for line in ("Application: decode v1 train\n", "Labels: exp:7\n", "Submitted: 20", "Ran: "):
        assert line in text
