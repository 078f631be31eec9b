"""Whether a storage works: before a start, which ends otherwise, and for `--check`."""

import asyncio
from typing import Final

from common.config.settings import StorageSettings
from common.runtime.checks import Check, CheckFailed
from common.runtime.process import CannotStart
from common.storage.errors import StorageError, StorageUnusable
from common.storage.factory import open_storage
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger

_TIMEOUT: Final = 5.0

log = get_logger()


def check_storage(settings: StorageSettings, *, write: bool) -> Check:
    """Whether the storage can be read and, with `write`, written to; local storage always is."""

    async def run() -> str:
        try:
            async with open_storage(settings) as storage:
                await storage.probe(write=write)
        except StorageError as error:
            raise CheckFailed(f"{settings.named}: {error}") from error
        return settings.place

    return Check("storage", run)


async def check_usable(storage: Storage, settings: StorageSettings) -> None:
    """Try the storage out. Raises `CannotStart` if only an operator can make it work.

    An outage is logged and nothing else: it may pass, and updates of workers need no storage.
    """
    try:
        async with asyncio.timeout(_TIMEOUT):
            await storage.probe(write=False)
    except StorageUnusable as error:
        raise CannotStart(f"{settings.named}: {error}") from error
    except (StorageError, TimeoutError) as error:
        log.warning(
            "storage.unavailable", place=settings.place, reason=str(error) or "no answer in time"
        )
