"""The command line of a service: `python -m SERVICE [--check | --version]`."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import uvloop

from common.config.environment import Reader, SettingsError, load_or_exit, open_reader
from common.config.settings import VERSION, LogSettings
from common.runtime.checks import Check, run_checks
from common.telemetry import logs
from common.telemetry.redaction import Redaction

log = logs.get_logger()


class ServiceSettings(Protocol):
    """What the settings of every service have."""

    @property
    def logs(self) -> LogSettings: ...

    @property
    def summary(self) -> Mapping[str, str]:
        """What is in use, without secrets, for the log line of the start."""


S = TypeVar("S", bound=ServiceSettings)


def main(
    service: str,
    *,
    purpose: str,
    load: Callable[[Reader], S],
    checks: Callable[[S], Sequence[Check]],
    serve: Callable[[S], None],
) -> None:
    """Read the command line, then the settings; run the service, or its `checks`."""
    arguments = _parser(service, purpose).parse_args()
    if arguments.check:
        raise SystemExit(_check(service, load, checks))
    settings = load_or_exit(service, load)
    logs.configure(service, settings.logs)
    log.info("settings.read", version=VERSION, **settings.summary)
    serve(settings)


def _parser(service: str, purpose: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {service}",
        description=purpose,
        epilog="Without an option the service starts. Its settings are environment variables, also"
        " read from .env in the working directory; .env.example lists them.",
    )
    parser.add_argument("--version", action="version", version=f"{service} {VERSION}")
    parser.add_argument(
        "--check",
        action="store_true",
        help="try out everything that the settings name, one line each, without starting the"
        " service; exit with 1 if anything fails",
    )
    return parser


def _check(
    service: str, load: Callable[[Reader], S], checks: Callable[[S], Sequence[Check]]
) -> int:
    """Check the settings, then what they name; returns the exit status."""
    reader = open_reader()
    try:
        settings = load(reader)
        reader.check()
    except SettingsError as error:
        _show(Redaction(reader.secrets, encoded=True), "FAIL", "settings", str(error))
        return 1
    show = partial(_show, Redaction(settings.logs.secrets, encoded=True))
    for variable in settings.logs.short_secrets:
        show("warn", "settings", f"{variable} is short enough to be guessed")
    for warned in settings.logs.warnings:
        words = ", ".join(f"{name}={value}" for name, value in warned.fields)
        show("warn", "settings", f"{warned.event}: {words}")
    show("ok", "settings", f"{service} {VERSION}")
    quiet = replace(settings.logs, level="CRITICAL", short_secrets=(), warnings=())
    logs.configure(service, quiet)
    return 0 if uvloop.run(run_checks(checks(settings), show)) else 1


def _show(redaction: Redaction, status: str, name: str, found: str) -> None:
    line = f"{status:<4}  {name:<12}  {' '.join(found.split())}"
    print(redaction(line), file=sys.stdout, flush=True)
