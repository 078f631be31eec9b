from typing import Any

import pytest

from gateway.notifications.mail_events import MOST_EVENTS, MailEvent, parse_events


def parsed(**item: Any) -> MailEvent:
    (event,) = parse_events({"email": "ada@example.org", "CustomID": "c1", **item})
    return event


@pytest.mark.parametrize(
    ("item", "suppresses"),
    [
        ({"event": "bounce", "hard_bounce": True}, True),
        ({"event": "bounce", "hard_bounce": False, "blocked": True}, True),
        ({"event": "bounce", "hard_bounce": False, "error": "mailbox full"}, False),
        ({"event": "bounce"}, False),
        ({"event": "blocked"}, True),
        ({"event": "blocked", "error_related_to": "recipient"}, True),
        ({"event": "blocked", "error_related_to": "domain"}, True),
        ({"event": "blocked", "error_related_to": "mailjet", "error": "preblocked"}, True),
        ({"event": "blocked", "error_related_to": "content"}, False),
        ({"event": "blocked", "error_related_to": "system"}, False),
        ({"event": "spam"}, True),
        ({"event": "unsub"}, True),
    ],
)
def test_an_address_that_takes_no_mails_is_told_from_a_passing_fault(
    item: dict[str, Any], suppresses: bool
) -> None:
    assert parsed(**item).suppresses is suppresses


def test_the_reason_holds_mailjets_words_without_control_characters() -> None:
    event = parsed(event="bounce", hard_bounce=True, error="user\x1b unknown\n")
    assert event.reason == "bounced for good (user unknown)"
    assert len(parsed(event="spam", error="x" * 1_000).reason) == 300


@pytest.mark.parametrize(
    "item",
    [
        None, 3, "bounce", {}, [], {"event": "sent", "email": "ada@example.org"},
        {"event": ["bounce"], "email": "ada@example.org"},
        *({"event": "spam", "email": address} for address in (None, "", "ada", "a@" + "b" * 300)),
    ],
)  # fmt: skip
def test_what_is_no_event_of_an_address_is_skipped(item: Any) -> None:
    assert [*parse_events(item)] == []
    assert len([*parse_events([item, {"event": "spam", "email": "a@b"}])]) == 1


def test_one_request_has_so_many_events_at_most() -> None:
    assert len([*parse_events([{"event": "spam", "email": "a@b"}] * 2_000)]) == MOST_EVENTS
