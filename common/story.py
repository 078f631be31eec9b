"""One job's life across the tables: `python -m common.story JOB_ID [--json]`. Reads only."""

import argparse
import asyncio
import sys

from common.config.environment import exit_with, load_or_exit
from common.config.settings import read_database
from common.jobs.timeline import StoryError, read_story_once


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.story", description=__doc__)
    parser.add_argument("job_id", type=int, help="a job's id, or a number under which it was sent")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    arguments = parser.parse_args()
    settings = load_or_exit("story", read_database)
    try:
        story = asyncio.run(read_story_once(settings, arguments.job_id))
    except StoryError as error:
        exit_with("story", f"{error}.")
    sys.stdout.write(story.as_json().decode() if arguments.json else story.as_text())
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
