"""A test that never ends, for `tests/tools/test_killed_runs.py`: pytest finds it by name only."""

import asyncio
import os
from pathlib import Path

from deploy.sandbox import aws
from tests.support import pgbouncer
from tests.support.cloud import Cloud, on_postgresql


@on_postgresql
async def test_a_service_on_postgresql_and_s3_waits_for_ever(cloud: Cloud, aws_url: str) -> None:
    aws.create_bucket(aws_url, "files")
    place = {"FILESYSTEM": "s3", "S3_BUCKET": "files", "USER_DATA_ROOT_PATH": "users"}
    await cloud.gateway(**place, **aws.environment(aws_url))
    if pgbouncer.is_installed():
        proxy = pgbouncer.running_pgbouncer(cloud.database_url)
        await asyncio.to_thread(proxy.__enter__)
    Path(os.environ["TMPDIR"], "ready").touch()
    await asyncio.Event().wait()
