"""The application configuration in force: read at start, and again after each change.

At start an invalid one is an error that names the file and the key; an invalid edit is logged, and
the last valid configuration stays in force.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog

from common.aws import AwsError
from common.config.application_source import open_source
from common.config.catalogue import Catalogue, InvalidApplications, parse

log: Any = structlog.get_logger()


class Applications:
    """The configuration in force: `load` at start, `current` from then on, `close` at the end.

    One task at a time reads it again; callers wait for it only briefly, since the last valid
    configuration is at hand.
    """

    def __init__(self, location: str) -> None:
        self._location = location
        self._source = open_source(location)
        self._catalogue: Catalogue | None = None
        self._reading: asyncio.Task[None] | None = None
        self._began = 0.0
        self._unreadable = ""

    async def load(self) -> None:
        """Read the configuration at start. Raises `InvalidApplications`."""
        try:
            content = await self._source.read_if_changed()
        except (OSError, AwsError) as error:
            raise InvalidApplications(
                f"APPLICATION_CONFIG_FILE: {self._location} cannot be read"
                f" ({getattr(error, 'strerror', None) or error})"
            ) from error
        try:
            self._catalogue = await asyncio.to_thread(parse, content or b"")
        except InvalidApplications as error:
            raise InvalidApplications(
                f"APPLICATION_CONFIG_FILE: {self._location}: {error}"
            ) from error

    async def current(self) -> Catalogue:
        """The configuration in force, read again first if it has changed.

        Raises `InvalidApplications` only if there has never been a valid one.
        """
        if self._reading is None and self._source.is_due():
            self._began = time.monotonic()
            self._reading = asyncio.create_task(self._read_again())
        if self._reading is not None:
            left = self._began + self._source.wait - time.monotonic()
            if left > 0 or self._catalogue is None:
                await asyncio.wait([self._reading], timeout=left if self._catalogue else None)
        if self._catalogue is None:
            raise InvalidApplications("there is no valid application configuration yet")
        return self._catalogue

    async def _read_again(self) -> None:
        try:
            content = await self._source.read_if_changed()
            self._unreadable = ""
            if content is not None:
                self._catalogue = await asyncio.to_thread(parse, content)
                log.info("applications.reloaded", location=self._location)
        except InvalidApplications as error:
            self._refuse(str(error))
        except (OSError, AwsError) as error:
            before, self._unreadable = self._unreadable, str(error) or type(error).__name__
            if self._unreadable != before:  # logged once, not at every try
                self._refuse(self._unreadable)
        except Exception:
            log.exception("applications.failed", location=self._location)
        finally:
            self._reading = None

    def _refuse(self, reason: str) -> None:
        log.error("applications.refused", location=self._location, reason=reason)

    async def close(self) -> None:
        """Cancel a reading in progress."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def timeout_of(self, application: Mapping[str, Any]) -> float | None:
        """Seconds that a job of this application may take; None if that is not configured."""
        keys = (application.get(key) for key in ("application", "version", "entrypoint"))
        found = (await self.current()).find(*keys)
        return found.timeout if found else None
