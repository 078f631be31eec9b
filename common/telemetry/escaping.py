"""Characters that a terminal obeys are shown in log lines, not sent: clients choose paths.

Escape sequences rewrite lines above, or a terminal's title; marks of direction reorder a line.
"""

import json
from io import StringIO
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo


class _Shown:
    """A value by the text that stands for it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def escape_event(event: EventDict) -> EventDict:
    """An event for structlog's `ConsoleRenderer`, with nothing in it but printable text."""
    return {_escape(key): _shown(key, value) for key, value in event.items()}


def format_exception(file: TextIO, error: ExcInfo) -> None:
    """Write a traceback, escaped but for its line breaks.

    Where rich is installed, structlog's default shows local variables, secrets among them.
    """
    text = StringIO()
    structlog.dev.plain_traceback(text, error)
    file.write(_escape_lines(text.getvalue()))


def escape_json(line: str) -> str:
    """Escape what JSON leaves as it is, C1 controls for example."""
    if line.isascii() or line.isprintable():
        return line
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)


def _shown(key: str, value: Any) -> Any:
    if key == "exc_info":
        return value  # `format_exception` writes it
    if key in {"exception", "stack"}:
        return _escape_lines(str(value))
    if key == "event":  # which is shown without quotes
        return _escape(str(value))
    text = value if isinstance(value, str) else repr(value)
    if text.isprintable():
        return value
    return _Shown(repr(value) if text is value else _escape(text))


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _escape_lines(text: str) -> str:
    return "\n".join(map(_escape, text.split("\n")))
