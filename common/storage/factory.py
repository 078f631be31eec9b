"""Open the storage that the settings select."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common.config.settings import StorageSettings
from common.storage.local.storage import LocalStorage
from common.storage.protocol import Storage


@asynccontextmanager
async def open_storage(settings: StorageSettings) -> AsyncIterator[Storage]:
    """The storage, open while the context lasts."""
    if settings.kind == "s3":
        from common.storage.s3.storage import S3Storage  # imports botocore, which is large

        async with S3Storage(
            settings.bucket,
            region=settings.region,
            root=settings.root,
            public_endpoint=settings.public_endpoint,
        ) as storage:
            yield storage
        return
    async with LocalStorage(settings.root, fsync=settings.fsync) as local:
        yield local
