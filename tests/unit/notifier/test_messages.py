import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from common.notifications.links import UnsubscribeLinks
from notifier.messages import (
    MAX_DETAILS,
    MAX_OUTPUT,
    Digest,
    Ended,
    Job,
    Mail,
    Message,
    Site,
    Webhook,
    write_digest,
    write_message,
    write_notice,
)

MAIL = Mail(
    id=1, owner="me", attempts=1, doubts=0, priority=0, correlation_id=None, last_error=None,
    job_id=7, user_id="ada", kind="finished", recipient="ada@example.org", custom_id="1",
    webhook_id=None, alone=False,
)  # fmt: skip
JOB = Job(
    name="train",
    user_id="ada",
    application=["decode", "v1", "train"],
    labels={"exp": "7", "kind": "test"},
    results=["output/train", "log/train", "artifact/train"],
    submitted=datetime(2026, 1, 1, 12, tzinfo=UTC),
    started=datetime(2026, 1, 1, 12, 0, 5, tzinfo=UTC),
    ended=datetime(2026, 1, 2, 14, 3, 5, tzinfo=UTC),
    details="epoch 1\nepoch 2",
)
WEBHOOK = Webhook(
    id=3,
    host="<b>.example.org",
    failing_since=datetime(2026, 1, 1, 12, tzinfo=UTC),
    disabled_at=datetime(2026, 1, 6, 12, tzinfo=UTC),
)
SITE = Site(
    front_end="https://cloud.example.org",
    public_url="https://api.example.org",
    links=UnsubscribeLinks(["key"]),
)


def message(*, site: Site = Site(), **changes: Any) -> Message:  # noqa: B008
    return write_message(MAIL, replace(JOB, **changes), site)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("train", "Job train (id=7) finished"),
        (" a  b ", "Job  a  b  (id=7) finished"),
        ("", "Job (id=7) finished"),  # of an adopted job
        ("a\r\nBcc: eve@example.org", "Job a Bcc: eve@example.org (id=7) finished"),
        ("a\x00b", "Job a b (id=7) finished"),
        ("a\u2028b", "Job a b (id=7) finished"),
        ("a\u202egnp.exe", "Job a gnp.exe (id=7) finished"),  # would turn the rest around
    ],
)
def test_the_subject_names_job_id_and_status_on_one_line(name: str, subject: str) -> None:
    assert message(name=name).subject == subject


def test_templates_that_an_upgrade_replaces_are_not_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = message()
    monkeypatch.setattr("os.path.getmtime", lambda _: 0.0)
    monkeypatch.delattr("jinja2.FileSystemLoader.get_source")
    assert message() == before


@pytest.mark.parametrize("mark", ["\n", "\u2028", "\u202e"])
def test_no_text_of_a_job_begins_a_line_or_turns_one_around(mark: str) -> None:
    forged = f"a{mark}Status: error"
    texts = {"name": forged, "application": [forged], "labels": {"key": forged}}
    shown = message(**texts, results=[f"output/{forged}"])
    for part in (shown.subject, shown.text, shown.html):
        assert forged not in part
        assert "a Status: error" in part


FACTS = """\
Name: train
ID: 7
Status: finished
Application: decode v1 train
Labels: exp:7, kind:test
Submitted: 2026-01-01 12:00:00 UTC
Started: 2026-01-01 12:00:05 UTC
Ended: 2026-01-02 14:03:05 UTC
Waited: 5 seconds
Ran: 1 day, 2 hours and 3 minutes

Results: output/train, log/train, artifact/train
"""


@pytest.mark.parametrize("details", ["epoch 1\nepoch 2", None])
def test_the_text_holds_all_that_is_known_of_the_job(details: str | None) -> None:
    text = message(details=details).text
    assert text.startswith(FACTS)
    assert f"\n\nRun-time details:\n{details or 'none'}\n\n-- \n" in text
    assert 'PUT /user/notifications {"mail"' in text


def test_html_holds_what_the_text_holds() -> None:
    html = re.sub("<[^>]+>", " ", message().html)
    for fact in FACTS.splitlines()[:10]:
        label, _, value = fact.partition(": ")
        assert label in html
        assert value in html
    assert "epoch 1\nepoch 2" in html


def test_what_is_not_known_is_left_out() -> None:
    text = message(
        application=[], labels={}, submitted=None, started=None, ended=None, results=[]
    ).text
    assert text.startswith("Name: train\nID: 7\nStatus: finished\n\nResults: \n")


def test_a_job_that_never_started_waited_until_its_end() -> None:
    text = message(started=None, ended=datetime(2026, 1, 1, 12, 2, tzinfo=UTC)).text
    assert "Waited: 2 minutes\n" in text
    assert "Ran:" not in text


def test_a_mail_about_a_deleted_job_holds_what_the_mail_itself_knows() -> None:
    text = write_message(MAIL, None, SITE).text
    assert text.startswith("Name: \nID: 7\nStatus: finished\n\nRun-time details:\nnone\n")


def test_results_are_linked_where_there_are_addresses() -> None:
    written = message(site=SITE)
    for part in (written.text, written.html):
        assert "https://cloud.example.org" in part
        assert "GET https://api.example.org/jobs/7/download" in part
    assert 'href="https://cloud.example.org"' in written.html


def test_html_is_escaped() -> None:
    html = message(
        name="<img onerror=x>", details="a < b & c", labels={"a": "<script>"}, results=["<b>"]
    ).html
    assert "<img" not in html
    assert "<script" not in html
    assert "<b>" not in html
    assert "a &lt; b &amp; c" in html


def test_every_mail_stops_with_one_click_where_the_gateway_has_an_address() -> None:
    digest = Digest({"finished": 1}, [Ended(1, "a", "finished")])
    for written in (
        message(site=SITE),
        write_digest(MAIL, digest, SITE),
        write_notice(MAIL, WEBHOOK, SITE),
    ):
        link = written.headers["List-Unsubscribe"]
        assert written.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        found = re.fullmatch(
            r"<https://api\.example\.org/notifications/unsubscribe\?t=([\w-]+)>", link
        )
        assert found is not None
        assert UnsubscribeLinks(["key"]).user_of(found[1]) == "ada"
        assert link[1:-1] in written.text
        assert f'href="{link[1:-1]}"' in written.html
    assert message(site=replace(SITE, public_url="")).headers == {}


def test_a_mail_of_an_earlier_version_is_the_users_of_its_job() -> None:
    link = write_message(replace(MAIL, user_id=None), JOB, SITE).headers["List-Unsubscribe"]
    assert UnsubscribeLinks(["key"]).user_of(link[1:-1].partition("t=")[2]) == "ada"


def test_of_details_beyond_the_longest_length_the_end_is_kept() -> None:
    text = message(details="x" * MAX_DETAILS + "the end").text
    assert "xthe end\n" in text
    assert len(text) < MAX_DETAILS + 800
    assert "[…]" in text
    assert "[…]" not in message(details="x" * MAX_DETAILS).text


def test_details_are_shown_as_on_a_terminal_before_their_length_counts() -> None:
    progress = "".join(f"\r\x1b[32m{percent:3}%\x1b[0m" for percent in range(101))
    text = message(details=f"start\n{progress * 100}\nend").text
    assert "Run-time details:\nstart\n100%\nend\n" in text


def test_of_output_beyond_what_is_interpreted_the_end_is_kept() -> None:
    text = message(details="start\n" + "\r50%" * (MAX_OUTPUT // 4) + "\nend").text
    assert "Run-time details:\n[…]\n50%\nend\n" in text


@pytest.mark.parametrize(
    ("counts", "subject"),
    [
        ({"finished": 1}, "1 job has ended: 1 finished"),
        ({"finished": 2, "error": 1}, "3 jobs have ended: 1 error, 2 finished"),
    ],
)
def test_a_digest_counts_and_names_jobs(counts: dict[str, int], subject: str) -> None:
    digest = Digest(counts, [Ended(1, "<a>", "finished")])
    written = write_digest(replace(MAIL, job_id=None, kind="digest"), digest, SITE)
    assert written.subject == subject
    assert "<a> (id=1) finished\n" in written.text
    assert "&lt;a&gt;" in written.html
    for part in (written.text, written.html):
        assert ("and 2 more" in part) is (sum(counts.values()) == 3)


def test_a_mail_about_a_webhook_says_since_when_it_fails_and_how_it_is_enabled() -> None:
    written = write_notice(MAIL, WEBHOOK, SITE)
    assert written.subject == "Webhook 3 to <b>.example.org has been disabled"
    assert "since 2026-01-01 12:00:00 UTC, and was disabled on 2026-01-06" in written.text
    assert 'PATCH https://api.example.org/webhooks/3 {"disabled": false}\n' in written.text
    assert "GET https://api.example.org/webhooks/3/deliveries\n" in written.text
    assert "<b>" not in written.html
    assert "&lt;b&gt;.example.org" in written.html


def test_what_has_a_colour_has_a_dark_one_too() -> None:
    digest = Digest({"error": 1}, [Ended(1, "a", "error"), Ended(2, "b", "finished")])
    for written in (message(site=SITE), write_digest(MAIL, digest, SITE)):
        style, body = written.html.split("</style>")
        dark = style.partition("@media (prefers-color-scheme: dark) {")[2]
        known = set(re.findall(r"^\.(\w+) {", dark, re.MULTILINE))
        for tag in re.findall(r"<[a-z][^>]*(?:color|background):#[^>]*>", body):
            names = re.search(r'class="([^"]+)"', tag)
            assert names, tag
            assert set(names[1].split()) <= known
