"""A test that never ends, for `tests/tools/test_killed_runs.py`: pytest finds it by name only."""

import asyncio

from deploy.sandbox import aws
from tests.support import pgbouncer
from tests.support.cloud import Cloud, on_postgresql


@on_postgresql
async def test_a_service_on_postgresql_and_s3_is_waited_for(cloud: Cloud, aws_url: str) -> None:
    aws.create_bucket(aws_url, "files")
    place = {"FILESYSTEM": "s3", "S3_BUCKET": "files", "USER_DATA_ROOT_PATH": "users"}
    # in a process group of its own, so that only the tie to its parent ends it
    await cloud.gateway(group=0, **place, **aws.environment(aws_url))
    if pgbouncer.is_installed():
        proxy = pgbouncer.running_pgbouncer(cloud.database_url)
        await asyncio.to_thread(proxy.__enter__)
    await asyncio.Event().wait()
