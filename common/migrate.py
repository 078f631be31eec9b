"""Migrate the database: `python -m common.migrate [upgrade|downgrade|current] [REVISION]`.

Processes may run it at the same time: one migrates in one transaction, the others wait.
"""

import argparse
from dataclasses import replace
from typing import Any

import uvloop

from common.config.environment import Reader, exit_with, load_or_exit
from common.config.settings import DatabaseSettings, LogSettings, read_database, read_logs
from common.database.engine import Database
from common.database.errors import CannotDowngrade, DatabaseRefused, DatabaseUnavailable
from common.database.schema import UnknownRevision, current, migrate, revisions
from common.runtime.startup import accepted, wait_until_up
from common.telemetry import logs


def _load(reader: Reader) -> tuple[DatabaseSettings, LogSettings]:
    return read_database(reader), read_logs(reader)


async def _run(settings: DatabaseSettings, arguments: Any) -> None:
    settings = await accepted(settings)
    database = Database(replace(settings, command_timeout=None))  # building an index takes long
    try:
        await wait_until_up(database, settings.startup_timeout)
        if arguments.action == "current":
            print(await current(database) or "none")
            return
        await migrate(database, arguments.revision, down=arguments.action == "downgrade")
        found = await current(database) or "none"
        newer = "" if found in ("none", *revisions()) else ", of a newer version: left as it is"
        print(f"The database is at revision {found}{newer}.")
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.migrate", description=__doc__)
    parser.add_argument(
        "action", nargs="?", default="upgrade", choices=("upgrade", "downgrade", "current")
    )
    parser.add_argument("revision", nargs="?", default="head")
    arguments = parser.parse_args()
    if arguments.action == "downgrade" and arguments.revision == "head":
        parser.error("name the revision to go back to, or 'base'")
    settings, log_settings = load_or_exit("migrate", _load)
    logs.configure("migrate", log_settings)
    try:
        uvloop.run(_run(settings, arguments))
    except (CannotDowngrade, UnknownRevision) as error:
        exit_with("migrate", str(error))
    except DatabaseRefused as error:
        exit_with("migrate", f"DATABASE_URL or DATABASE_SECRET is wrong ({error}).")
    except DatabaseUnavailable as error:
        exit_with("migrate", f"the database did not answer ({error}).")


if __name__ == "__main__":
    main()
