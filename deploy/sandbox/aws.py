"""Stand-in for AWS: moto's server, a bucket, a secret, and the variables that point there."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import boto3

from deploy.sandbox.lifeline import tied_to_parent
from deploy.sandbox.ports import LOOPBACK, free_port, wait_until_listening

REGION: Final = "eu-central-1"
_KEYS: Final = {"aws_access_key_id": "sandbox", "aws_secret_access_key": "sandbox"}


def moto_command(port: int) -> list[str]:
    """The command of moto's server, which keeps everything in memory."""
    return [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)]


def environment(endpoint: str, region: str = REGION) -> dict[str, str]:
    """Variables that direct every AWS client to the stand-in only."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": _KEYS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": _KEYS["aws_secret_access_key"],
        "AWS_DEFAULT_REGION": region,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def moto_server(
    port: int | None = None,
    log: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[str]:
    """Run moto's server as a process; yields its URL. Raises `NotReadyError`."""
    port = port or free_port()
    endpoint = f"http://{LOOPBACK}:{port}"
    with open(log or "/dev/null", "ab") as output:
        process = subprocess.Popen(
            tied_to_parent(moto_command(port), signal.SIGTERM),
            stdout=output,
            stderr=output,
            env={**os.environ, **settings},
            start_new_session=True,
        )
    try:
        wait_until_listening(port, alive=lambda: process.poll() is None)
        yield endpoint
    finally:
        process.terminate()
        process.wait(10)


def client(service: str, endpoint: str, region: str = REGION) -> Any:
    """A blocking boto3 client for the stand-in."""
    return boto3.client(service, region_name=region, endpoint_url=endpoint, **_KEYS)


def create_bucket(endpoint: str, name: str, region: str = REGION) -> None:
    place = {"LocationConstraint": region}
    client("s3", endpoint, region).create_bucket(Bucket=name, CreateBucketConfiguration=place)


def create_secret(endpoint: str, name: str, text: str, region: str = REGION) -> str:
    """Store `text` in Secrets Manager; returns the ARN."""
    manager = client("secretsmanager", endpoint, region)
    return str(manager.create_secret(Name=name, SecretString=text)["ARN"])
