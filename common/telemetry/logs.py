"""Structured logs: one JSON object per line on standard output, pretty on a terminal."""

import asyncio
import atexit
import json
import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from common.config.settings import LogSettings
from common.telemetry.redaction import Redaction


def get_logger() -> Any:
    """A logger whose events carry what is bound in the current context."""
    return structlog.get_logger()


def configure(service: str, settings: LogSettings) -> None:
    """Set logging up for the process, the standard library's included."""
    pretty = settings.form == "pretty" or (settings.form == "auto" and sys.stdout.isatty())
    level = logging.getLevelNamesMapping()[settings.level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_service(service),
    ]
    render: list[Processor] = (
        [structlog.dev.ConsoleRenderer(), _redact(settings.secrets)]
        if pretty
        else [structlog.processors.format_exc_info, _render_json, _redact(settings.secrets)]
    )
    lines = Lines(sys.stdout)
    atexit.register(lines.flush)
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    for variable in settings.short_secrets:
        get_logger().warning("settings.secret_short", variable=variable)


class Lines:
    """Writes lines to a file: all those of one turn of the event loop in one go.

    A busy gateway would else spend a fifth of its time on writing them one by one. Warnings and
    errors go out at once, with what came before them, and so do lines from outside of the loop.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._waiting: list[str] = []

    def info(self, line: str) -> None:
        """One line, which may wait for the end of this turn."""
        self._add(line, at_once=False)

    def warning(self, line: str) -> None:
        """One line, at once."""
        self._add(line, at_once=True)

    debug = info
    error = critical = warning

    def _add(self, line: str, *, at_once: bool) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write(line)  # perhaps another thread: what is waiting is the loop's
            return
        self._waiting.append(line)
        if at_once:
            self.flush()
        elif len(self._waiting) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is waiting."""
        lines, self._waiting = self._waiting, []
        if lines:
            self._write("\n".join(lines))

    def _write(self, text: str) -> None:
        self._file.write(f"{text}\n")
        self._file.flush()


def _render_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # a number beyond 64 bits, a lone surrogate: what is told of must go on
        return json.dumps(event, default=str)


def _add_service(service: str) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return add


def _redact(secrets: tuple[str, ...]) -> Callable[[WrappedLogger, str, Any], Any]:
    """Keep every known secret out of a rendered line, wherever it came from."""
    redaction = Redaction(secrets)

    def redact(_: WrappedLogger, __: str, line: str) -> str:
        return redaction(line)

    return redact
