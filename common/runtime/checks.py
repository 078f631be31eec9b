"""`--check`: try out what a service uses, one thing at a time, without starting anything."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from common.aws import AwsError
from common.config.applications import Applications
from common.config.catalogue import InvalidApplications
from common.config.settings import DatabaseSettings
from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.schema import current
from common.runtime.startup import accepted, missing_revision, wait_until_up

TIMEOUT: Final = 10.0
"""Seconds for each check."""

Show = Callable[[str, str, str], None]
"""Shows the outcome of a check: `ok`, `warn` or `FAIL`, its name, and what was found."""


class CheckFailed(Exception):
    """What is wrong; the message starts in lower case and has no full stop."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something to try out; `run` returns what was found, or raises `CheckFailed`."""

    name: str
    run: Callable[[], Awaitable[str]]


async def run_checks(checks: Sequence[Check], show: Show, *, timeout: float = TIMEOUT) -> bool:
    """Run one check after another; returns whether all of them are fine."""
    fine, late = True, False
    for check in checks:
        task = asyncio.ensure_future(_outcome(check))
        await asyncio.wait([task], timeout=timeout)
        if task.done():
            status, found = task.result()
        else:
            task.cancel()
            late, status, found = True, "FAIL", f"no answer within {timeout:g} s"
        show(status, check.name, found)
        fine = fine and status != "FAIL"
    if late:  # its thread may wait for a disk for ever, and would hold up the end
        sys.stdout.flush()
        os._exit(1)
    return fine


async def _outcome(check: Check) -> tuple[str, str]:
    try:
        return "ok", await check.run()
    except (CheckFailed, DatabaseUnavailable, InvalidApplications, AwsError) as error:
        return "FAIL", str(error)
    except Exception as error:  # noqa: BLE001 - any failure is a finding
        return "FAIL", f"{type(error).__name__}: {error}"


def check_database(settings: DatabaseSettings) -> Check:
    """Whether the database is there and has the schema that this version needs."""
    return Check("database", lambda: _try_database(settings))


async def _try_database(settings: DatabaseSettings) -> str:
    if settings.is_sqlite and (file := _missing_file(settings)) is not None:
        try:
            tempfile.TemporaryFile(dir=file.parent).close()
        except OSError as error:
            raise CheckFailed(f"{file} cannot be created ({error.strerror})") from error
        return f"{settings.address} is created at the start"
    settings = await accepted(replace(settings, startup_timeout=0.0))
    database = Database(settings)
    try:
        await wait_until_up(database, 0.0)
        found = await current(database)
        lacks = await missing_revision(database)
    finally:
        await database.close()
    if lacks is None:
        return f"{settings.address} at revision {found}"
    if settings.is_sqlite:
        return f"{settings.address} at revision {found or 'none'}, is migrated at the start"
    raise CheckFailed(lacks)


def _missing_file(settings: DatabaseSettings) -> Path | None:
    """SQLite's file if it is missing: a connection would create it."""
    file = settings.url.database
    if not file or file == ":memory:" or file.startswith("file:") or Path(file).exists():
        return None
    return Path(file)


def check_applications(location: str) -> Check:
    """Whether the application configuration can be read and is valid."""

    async def run() -> str:
        applications = Applications(location)
        try:
            await applications.load()
            catalogue = await applications.current()
        finally:
            await applications.close()
        count = sum(
            len(names) for versions in catalogue.entrypoints.values() for names in versions.values()
        )
        return f"{location}, entrypoints: {count}"

    return Check("applications", run)
