"""Validation of the body of `POST /v3.1/send`, as in Mailjet's Send API v3.1 guide."""

import uuid
from dataclasses import dataclass
from typing import Any, Final

MOST_MESSAGES: Final = 50
_BOUNCING: Final = "@bounce.invalid"


class BodyError(Exception):
    """The whole body is refused; `answer` is Mailjet's."""

    def __init__(self, code: str, message: str, *related: str) -> None:
        super().__init__(message)
        self.answer = fault(code, message, *related)


@dataclass(frozen=True)
class Judged:
    """A message and its errors; without errors it is sent."""

    message: dict[str, Any]
    errors: list[dict[str, Any]]

    @property
    def custom_id(self) -> str:
        return str(self.message.get("CustomID") or "")


def fault(code: str, message: str, *related: str, status: int = 400) -> dict[str, Any]:
    """An error in Mailjet's format."""
    return {
        "ErrorIdentifier": str(uuid.uuid4()),
        "ErrorCode": code,
        "StatusCode": status,
        "ErrorMessage": message,
        "ErrorRelatedTo": list(related),
    }


def judge(body: Any) -> list[Judged]:
    """Validate each message independently. Raises `BodyError` for a body without messages."""
    if not isinstance(body, dict):
        raise BodyError("mj-0002", "Malformed JSON, please review the syntax and properties types.")
    messages = body.get("Messages")
    if not isinstance(messages, list) or not messages:
        raise BodyError("mj-0003", '"Messages" property must be a non-empty array.', "Messages")
    if len(messages) > MOST_MESSAGES:
        raise BodyError(
            "mj-0004", f"At most {MOST_MESSAGES} messages are allowed per request.", "Messages"
        )
    shared = body.get("Globals")
    shared = shared if isinstance(shared, dict) else {}
    return [_judge_one(item, shared) for item in messages]


def _judge_one(item: Any, shared: dict[str, Any]) -> Judged:
    if not isinstance(item, dict):
        return Judged({}, [fault("send-0001", "A message must be an object.", "Messages")])
    message = {**shared, **item}
    errors = []
    sender = message.get("From")
    if not isinstance(sender, dict) or not sender.get("Email"):
        errors.append(fault("send-0002", '"From" property should be an object.', "From.Email"))
    elif not _deliverable(sender.get("Email")):
        errors.append(_bad_address(sender.get("Email"), "From.Email"))
    receivers = message.get("To")
    if not isinstance(receivers, list) or not receivers:
        errors.append(fault("send-0003", "At least one recipient must be specified.", "To"))
    else:
        for place, receiver in enumerate(receivers):
            address = receiver.get("Email") if isinstance(receiver, dict) else None
            if not _deliverable(address):
                errors.append(_bad_address(address, f"To[{place}].Email"))
    if not any(message.get(part) for part in ("TextPart", "HTMLPart", "TemplateID")):
        errors.append(
            fault(
                "send-0004",
                'At least "HTMLPart", "TextPart" or "TemplateID" must be provided.',
                "TextPart",
                "HTMLPart",
                "TemplateID",
            )
        )
    errors += [
        fault("mj-0004", f'Type mismatch. Expected type "string" for {key}.', key)
        for key in ("Subject", "TextPart", "HTMLPart", "CustomID")
        if not isinstance(message.get(key, ""), str)
    ]
    return Judged(message, errors)


def _deliverable(address: Any) -> bool:
    if not isinstance(address, str) or address.endswith(_BOUNCING):
        return False
    local, at, domain = address.rpartition("@")
    return bool(local and at and domain) and not any(c.isspace() for c in address)


def _bad_address(address: Any, place: str) -> dict[str, Any]:
    return fault("mj-0013", f'"{address}" is an invalid email address.', place)
