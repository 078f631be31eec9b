"""The changes of the queue as JSON lines, so that a killed peer loses nothing."""

from pathlib import Path
from typing import Any

import orjson


class Journal:
    """An append-only file, unbuffered so that records survive the process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("ab", buffering=0)

    def load(self) -> list[dict[str, Any]]:
        """All records except for a last line that a crash cut off."""
        records: list[dict[str, Any]] = []
        for line in self._path.read_bytes().splitlines():
            try:
                records.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                continue
        return records

    def record(self, record: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(record) + b"\n")

    def close(self) -> None:
        self._file.close()
