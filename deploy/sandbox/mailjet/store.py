"""The mails that were sent, in a file of JSON lines that survives a restart."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

Mail = dict[str, Any]


class MailStore:
    """Mails by age; without a file, they are lost with the process."""

    def __init__(self, path: Path | None = None) -> None:
        self._mails: list[Mail] = []
        self._by_custom_id: dict[str, list[Mail]] = {}
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            for line in path.read_bytes().splitlines():
                try:
                    self._insert(orjson.loads(line))
                except orjson.JSONDecodeError:
                    continue  # cut off by a crash

    def __len__(self) -> int:
        return len(self._mails)

    def __iter__(self) -> Iterator[Mail]:
        return iter(self._mails)

    def add(self, message: dict[str, Any]) -> Mail:
        """Store a message; returns it as a mail with a number, a UUID and a time."""
        mail = {
            "id": (self._mails[-1]["id"] if self._mails else 0) + 1,
            "uuid": str(uuid.uuid4()),
            "sent_at": time.time(),
            "custom_id": str(message.get("CustomID") or ""),
            "from": message["From"],
            "to": message["To"],
            "subject": message.get("Subject") or "",
            "text": message.get("TextPart") or "",
            "html": message.get("HTMLPart") or "",
        }
        if self._file is not None:
            self._file.write(orjson.dumps(mail) + b"\n")
        self._insert(mail)
        return mail

    def _insert(self, mail: Mail) -> None:
        self._mails.append(mail)
        self._by_custom_id.setdefault(mail["custom_id"], []).append(mail)

    def get(self, number: int) -> Mail | None:
        return next((mail for mail in reversed(self._mails) if mail["id"] == number), None)

    def with_custom_id(self, custom_id: str) -> list[Mail]:
        return self._by_custom_id.get(custom_id, [])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
