"""Stand-in AWS: moto's server, a bucket, a secret, and the variables that point there.

Usable by tests as well: `with moto_server() as endpoint: ...`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import boto3

from deploy.sandbox.lifeline import tied_to_parent
from deploy.sandbox.ports import LOOPBACK, NotReadyError, free_port

REGION: Final = "eu-central-1"
_KEYS: Final = {"aws_access_key_id": "sandbox", "aws_secret_access_key": "sandbox"}


def moto_command(port: int) -> list[str]:
    """What starts moto's server; it keeps everything in memory."""
    return [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)]


def environment(endpoint: str, region: str = REGION) -> dict[str, str]:
    """Variables under which every AWS client speaks to the stand-in, and to nothing else."""
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
    """Run moto's server as a process; gives its URL. Raises `NotReadyError`."""
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
        _wait(endpoint, process)
        yield endpoint
    finally:
        process.terminate()
        process.wait(10)


def _wait(endpoint: str, process: "subprocess.Popen[bytes]", seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(endpoint, timeout=2):
            return
        time.sleep(0.1)
    raise NotReadyError(f"moto's server did not answer at {endpoint}")


def client(service: str, endpoint: str, region: str = REGION) -> Any:
    """A blocking boto3 client for the stand-in."""
    return boto3.client(service, region_name=region, endpoint_url=endpoint, **_KEYS)


def create_bucket(endpoint: str, name: str, region: str = REGION) -> None:
    place = {"LocationConstraint": region}
    client("s3", endpoint, region).create_bucket(Bucket=name, CreateBucketConfiguration=place)


def create_secret(endpoint: str, name: str, text: str, region: str = REGION) -> str:
    """Keep `text` in Secrets Manager; returns the ARN."""
    manager = client("secretsmanager", endpoint, region)
    return str(manager.create_secret(Name=name, SecretString=text)["ARN"])
