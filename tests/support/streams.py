"""A client of the stream of events."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.gateway import Api


class Stream:
    """The answer to `GET /jobs/events`, read frame by frame."""

    def __init__(self, api: Api, query: str = "", headers: dict[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", api.gateway.port, timeout=20)
        sent = {**api.headers, **(headers or {})}
        if api.token is not None:
            sent["Authorization"] = f"Bearer {api.token}"
        self._connection.request("GET", f"/jobs/events{query}", headers=sent)
        self.answer = self._connection.getresponse()

    def frame(self) -> dict[str, str]:
        """The next frame that is no comment; empty at the end of the stream."""
        found: dict[str, str] = {}
        while line := self.answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                found[name] = value
            elif found:
                return found
        return {}

    def event(self) -> dict[str, Any]:
        """The next event, after a check of its frame."""
        frame = self.frame()
        event: dict[str, Any] = json.loads(frame["data"])
        assert frame == {"id": str(event["id"]), "event": "job", "data": frame["data"]}
        return event

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


@contextmanager
def streaming(api: Api, query: str = "", headers: dict[str, str] | None = None) -> Iterator[Stream]:
    """An open stream, after its first line."""
    stream = Stream(api, query, headers)
    try:
        assert stream.answer.status == 200, stream.answer.read()
        assert stream.answer.headers["Content-Type"] == "text/event-stream"
        assert stream.frame() == {"retry": "3000"}
        yield stream
    finally:
        stream.close()
