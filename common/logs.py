"""Structured logs: one JSON object per line on standard output, pretty on a terminal."""

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from common.settings import LogSettings

Logger = structlog.stdlib.BoundLogger


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
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
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
    """Replace every known secret in a rendered line, wherever it came from.

    Very short values are left alone: they would blot out unrelated text.
    """
    spellings = {
        spelling
        for secret in secrets
        if len(secret) >= 6
        for spelling in (secret, orjson.dumps(secret).decode()[1:-1])
    }

    def redact(_: WrappedLogger, __: str, line: Any) -> Any:
        for spelling in spellings:
            if spelling in line:
                line = line.replace(spelling, "***")
        return line

    return redact
