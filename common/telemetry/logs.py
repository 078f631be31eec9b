"""Structured logs: one JSON object per line on standard output, readable text on a terminal."""

import asyncio
import atexit
import json
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from common.config.settings import LogSettings
from common.telemetry.escaping import escape_event, escape_json, format_exception
from common.telemetry.redaction import Redaction

_bound: Final[ContextVar[dict[str, Any]]] = ContextVar("bound", default={})  # noqa: B039 - replaced


def get_logger() -> Any:
    """A logger whose events have the fields that are bound in the current context."""
    return structlog.get_logger()


def bind(**fields: Any) -> None:
    """Add fields to the events that this task logs from now on."""
    _bound.set(_bound.get() | fields)


def configure(service: str, settings: LogSettings) -> None:
    """Set up the process's logging, the standard library's included."""
    pretty = settings.form == "pretty" or (settings.form == "auto" and sys.stdout.isatty())
    level = logging.getLevelNamesMapping()[settings.level]
    complete = _complete(service)
    render = _render(_to_text() if pretty else _to_json, settings.secrets)
    lines = Lines(sys.stdout)
    atexit.register(lines.flush)
    structlog.configure(
        processors=[complete, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[complete, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    for variable in settings.short_secrets:
        get_logger().warning("settings.secret_short", variable=variable)
    for warned in settings.warnings:
        get_logger().warning(warned.event, **dict(warned.fields))


class Lines:
    """Writes lines to a file, those of one iteration of the event loop together.

    Separate writes would take a fifth of a busy gateway's time. Warnings and errors are written at
    once, after the lines before them, and so are lines from outside of the loop.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._waiting: list[str] = []

    def info(self, line: str) -> None:
        """Write one line by the end of this iteration."""
        self._add(line, at_once=False)

    def warning(self, line: str) -> None:
        """Write one line at once."""
        self._add(line, at_once=True)

    debug = info
    error = critical = warning

    def _add(self, line: str, *, at_once: bool) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write(line)  # this may be another thread; the waiting lines are the loop's
            return
        self._waiting.append(line)
        if at_once:
            self.flush()
        elif len(self._waiting) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write the lines that wait."""
        lines, self._waiting = self._waiting, []
        if lines:
            self._write("\n".join(lines))

    def _write(self, text: str) -> None:
        self._file.write(f"{text}\n")
        self._file.flush()


def _complete(service: str) -> Processor:
    """Adds the bound fields, level, time and service."""

    def complete(_: WrappedLogger, level: str, event: EventDict) -> EventDict:
        event = {**_bound.get(), **event}
        event["level"] = level
        event["timestamp"] = datetime.now(UTC)
        event["service"] = service
        return event

    return complete


def _render(to_text: Callable[..., str], secrets: tuple[str, ...]) -> Processor:
    """Makes an event's line, without any known secret."""
    redaction = Redaction(secrets)
    return lambda logger, level, event: redaction(to_text(logger, level, event))


def _to_text() -> Callable[..., str]:
    """Makes an event's lines for a terminal."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=format_exception)
    return lambda logger, level, event: renderer(logger, level, escape_event(event))


def _to_json(logger: WrappedLogger, level: str, event: EventDict) -> str:
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, level, event)
    try:
        return escape_json(orjson.dumps(event, default=str, option=orjson.OPT_UTC_Z).decode())
    except TypeError:  # an integer beyond 64 bits or a lone surrogate, which orjson refuses
        return json.dumps(event, default=_plain)


def _plain(value: object) -> str:
    """What JSON has no type for, as orjson writes it."""
    return f"{value:%Y-%m-%dT%H:%M:%S.%fZ}" if isinstance(value, datetime) else str(value)
