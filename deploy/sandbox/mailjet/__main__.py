"""`python -m deploy.sandbox.mailjet`: serve the Mailjet stand-in."""

import argparse
from pathlib import Path

from aiohttp import web

from deploy.sandbox.mailjet.app import MailjetSettings, create_app
from deploy.sandbox.ports import LOOPBACK


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.sandbox.mailjet", description=__doc__)
    parser.add_argument("--port", type=int, default=8025)
    parser.add_argument(
        "--file", type=Path, help="file of JSON lines in which mails survive a restart"
    )
    given = parser.parse_args()
    app = create_app(MailjetSettings(file=given.file))
    web.run_app(app, host=LOOPBACK, port=given.port, access_log=None, shutdown_timeout=1.0)


if __name__ == "__main__":
    main()
