"""What Mailjet's events say about mails and addresses (its Event API). Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from common.storage.paths import CONTROL

MOST_EVENTS: Final = 1_000
"""Events that are taken of one request; Mailjet groups those of a second."""

_LONGEST: Final = 254
"""Characters of an address (RFC 5321, 4.5.3.1.3, without the brackets)."""

_LONGEST_REASON: Final = 300
_NOT_THE_ADDRESS: Final = frozenset({"content", "spam", "system", "mailjet"})
"""What a mail is blocked for (`error_related_to`) that is not the fault of its address."""


@dataclass(frozen=True, slots=True)
class MailEvent:
    """A mail came back, or its reader complained; `suppresses`: no more mails to the address."""

    address: str
    custom_id: str | None
    reason: str
    suppresses: bool


def parse_events(body: Any) -> Iterator[MailEvent]:
    """The events of one request, which is one or a list of them; others are skipped."""
    items = body if isinstance(body, list) else [body]
    for item in items[:MOST_EVENTS]:
        if isinstance(item, dict) and (event := _parse(item)) is not None:
            yield event


def _parse(item: dict[str, Any]) -> MailEvent | None:
    address, kind = item.get("email"), item.get("event")
    if not isinstance(address, str) or not 0 < len(address) <= _LONGEST or "@" not in address:
        return None
    match kind:
        case "bounce":
            suppresses = bool(item.get("hard_bounce")) or bool(item.get("blocked"))
            words = "bounced for good" if suppresses else "bounced for now"
        case "blocked":
            related, error = item.get("error_related_to"), item.get("error")
            suppresses = related not in _NOT_THE_ADDRESS or error == "preblocked"
            words = "blocked by Mailjet"
        case "spam":
            suppresses, words = True, "reported as spam by its reader"
        case "unsub":
            suppresses, words = True, "unsubscribed from at Mailjet"
        case _:
            return None
    custom_id = item.get("CustomID")
    return MailEvent(
        CONTROL.sub("", address),
        custom_id if isinstance(custom_id, str) and "\0" not in custom_id else None,
        _reason(words, item.get("error")),
        suppresses,
    )


def _reason(words: str, error: Any) -> str:
    named = CONTROL.sub("", error).strip() if isinstance(error, str) else ""
    return f"{words} ({named})"[:_LONGEST_REASON] if named else words
