"""The user pool's public keys, fetched rarely and kept while the key server is down."""

import asyncio
import time
from typing import Any, Final

import aiohttp
import jwt
import orjson

from common.telemetry.logs import get_logger
from gateway.auth.errors import KeysUnavailable

_WINDOW: Final = 30.0
"""Minimum seconds between two fetches for unknown key ids, and between a failed fetch and the
next one."""

_FIRST_RETRY: Final = 1.0
"""Seconds between two fetches as long as there is no key at all."""

_MAX_AGE: Final = 3_600.0
"""Seconds after which keys are fetched again, so that revoked ones expire."""

_RENEWAL_WAIT: Final = 0.25
"""Seconds for which requests wait for a renewal; after that they use the keys at hand."""

_TIMEOUT: Final = aiohttp.ClientTimeout(total=5.0)
_MAX_BYTES: Final = 1_000_000

log = get_logger()


class KeySet:
    """RSA keys by key id (RFC 7517), from `url`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._keys: dict[str, Any] = {}
        self._fetched = float("-inf")
        self._failed = float("-inf")
        self._missed = float("-inf")
        self._lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._began = 0.0

    async def find(self, key_id: str) -> Any | None:
        """The key with this id, or None if the pool has none. Raises `KeysUnavailable`."""
        if self._needs_fetch(key_id):
            if key_id in self._keys:
                await self._renew(key_id)
            else:
                await self._look_up(key_id)
        if not self._keys:
            raise KeysUnavailable
        return self._keys.get(key_id)

    async def _look_up(self, key_id: str) -> None:
        async with self._lock:
            if self._needs_fetch(key_id):  # still: another request may have fetched it
                await self._refresh()
                if key_id not in self._keys:
                    self._missed = time.monotonic()

    async def _renew(self, key_id: str) -> None:
        """Replace keys that are too old, waiting only briefly: the server may hang."""
        if self._renewal is None or self._renewal.done():
            self._began = time.monotonic()
            self._renewal = asyncio.create_task(self._look_up(key_id))
        left = self._began + _RENEWAL_WAIT - time.monotonic()
        if left > 0:
            await asyncio.wait([self._renewal], timeout=left)

    async def close(self) -> None:
        """Cancel a renewal in progress; the caller closes the session."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    def _needs_fetch(self, key_id: str) -> bool:
        """Whether this key calls for a fetch, and the limits allow one.

        A key added to the pool is found at once. An unknown id closes the window, since forged
        tokens may carry any number of them.
        """
        now = time.monotonic()
        if not self._keys:
            return now - self._failed >= _FIRST_RETRY
        if now - self._failed < _WINDOW:
            return False
        if key_id not in self._keys:
            return now - self._missed >= _WINDOW
        return now - self._fetched >= _MAX_AGE

    async def _refresh(self) -> None:
        try:
            self._keys = await self.fetch()
            self._fetched = time.monotonic()
            log.info("keys.fetched", count=len(self._keys))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._failed = time.monotonic()
            log.warning("keys.unavailable", url=self._url, reason=type(error).__name__)

    async def fetch(self) -> dict[str, Any]:
        """The keys that the server has now.

        Raises `aiohttp.ClientError`, `OSError` (`TimeoutError` included) or `ValueError`.
        """
        async with self._session.get(self._url, timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > _MAX_BYTES:
                    raise ValueError("too long for a key set")
        found = orjson.loads(body)
        if not isinstance(found, dict):
            raise ValueError("not a key set")  # noqa: TRY004 - the peer's mistake, not ours
        try:
            keys = jwt.PyJWKSet.from_dict(found).keys
        except jwt.PyJWTError as error:
            raise ValueError("no usable key") from error
        return {key.key_id: key.key for key in keys if key.key_id and key.key_type == "RSA"}
