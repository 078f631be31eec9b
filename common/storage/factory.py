"""Open the storage that the settings select."""

from contextlib import AbstractAsyncContextManager

from common.config.settings import StorageSettings
from common.storage.local.storage import LocalStorage
from common.storage.protocol import Storage


def open_storage(settings: StorageSettings) -> AbstractAsyncContextManager[Storage]:
    """The storage, to be entered."""
    if settings.kind == "s3":
        from common.storage.s3.storage import S3Storage  # imports botocore, which is large

        return S3Storage(
            settings.bucket,
            region=settings.region,
            root=settings.root,
            public_endpoint=settings.public_endpoint,
        )
    return LocalStorage(settings.root, fsync=settings.fsync, min_free_bytes=settings.min_free_bytes)
