"""One job's life across the tables: `python -m common.story JOB_ID [--json]`.

Reads only, on either database (`DATABASE_URL`).
"""

import argparse
import asyncio
import sys
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from common.config.environment import exit_with, load_or_exit
from common.config.settings import DatabaseSettings, read_database
from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.jobs.timeline import Story, StoryError, tell


def _check_file(settings: DatabaseSettings) -> None:
    """Connecting to a SQLite file that is not there would make one."""
    file = settings.url.database
    if settings.is_sqlite and not (file and Path(file).is_file()):
        raise StoryError(f"there is no database file {file}")


async def _tell_once(settings: DatabaseSettings, number: int) -> Story:
    database = Database(settings)
    try:
        return await tell(database, number)
    except DatabaseUnavailable as error:
        raise StoryError(f"the database did not answer ({error})") from error
    except DBAPIError as error:
        raise StoryError("the database lacks our tables: run python -m common.migrate") from error
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.story", description=__doc__)
    parser.add_argument("job_id", type=int, help="a job's id, or a number that it was sent under")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    arguments = parser.parse_args()
    settings = load_or_exit("story", read_database)
    try:
        _check_file(settings)
        story = asyncio.run(_tell_once(settings, arguments.job_id))
    except StoryError as error:
        exit_with("story", f"{error}.")
    sys.stdout.write(story.as_json().decode() if arguments.json else story.as_text())
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
