"""`python -m deploy.sandbox.peer`: serve the stand-in worker-facing API."""

import argparse
import os
from pathlib import Path

import uvloop
from aiohttp import web

from deploy.sandbox.peer.app import create_app
from deploy.sandbox.peer.state import PeerSettings
from deploy.sandbox.ports import LOOPBACK


def parse_arguments() -> tuple[PeerSettings, int]:
    """Settings from the arguments, else from the variables that the services use."""
    read = os.environ.get
    parser = argparse.ArgumentParser(prog="python -m deploy.sandbox.peer", description=__doc__)
    parser.add_argument("--port", type=int, default=int(read("PORT", "8001")))
    parser.add_argument("--gateway", default=read("USERFACING_API_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--key", default=read("INTERNAL_API_KEY_SECRET", ""), help="x-api-key")
    parser.add_argument("--filesystem", default=read("FILESYSTEM", "local"))
    parser.add_argument("--root", default=read("USER_DATA_ROOT_PATH", "user_data"))
    parser.add_argument("--bucket", default=read("S3_BUCKET", ""))
    parser.add_argument("--region", default=read("S3_REGION", "eu-central-1"))
    parser.add_argument("--journal", type=Path, help="file in which the queue survives a restart")
    parser.add_argument(
        "--silence",
        type=float,
        default=20.0,
        help="seconds without a report until a job is retried",
    )
    parser.add_argument("--can-be-asked", action="store_true", help="GET /_jobs/{job_id}/status")
    given = vars(parser.parse_args())
    port = given.pop("port")
    if not given["key"]:
        parser.error("no internal key: give --key or set INTERNAL_API_KEY_SECRET")
    if given["filesystem"] not in ("local", "s3"):
        parser.error("--filesystem must be local or s3")
    return PeerSettings(**given), port


def main() -> None:
    settings, port = parse_arguments()
    uvloop.install()
    web.run_app(
        create_app(settings), host=LOOPBACK, port=port, access_log=None, shutdown_timeout=1.0
    )


if __name__ == "__main__":
    main()
