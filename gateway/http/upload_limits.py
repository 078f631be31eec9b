"""What an upload may be, however it comes: where its file may lie, and how long it may be."""

from typing import Final

from common.storage.errors import OutOfSpace
from common.storage.protocol import Storage
from gateway.http.errors import TooLarge
from gateway.settings import Limits

UPLOAD_TYPES: Final = ("config", "data", "artifact")
"""Top-level directories to which users upload."""


class UploadLimits:
    """`MAX_UPLOAD_BYTES` (`most`, 0: no limit) and `MIN_FREE_BYTES`."""

    def __init__(self, storage: Storage, limits: Limits) -> None:
        self._storage = storage
        self._free_bytes = limits.free_bytes
        self.most = limits.upload_bytes

    async def check(self, length: int, *, around: int = 0) -> None:
        """Refuse an upload of `length` bytes that is certain to fail, before it is sent.

        At most `around` of them are no content. Raises `TooLarge` and `OutOfSpace`.
        """
        if self.most and length > self.most + around:
            raise self.too_large()
        if self._free_bytes:
            free = await self._storage.free_bytes()
            if free is not None and free < self._free_bytes + length:
                raise OutOfSpace(f"only {free} bytes are left")

    def too_large(self) -> TooLarge:
        return TooLarge(f"A file may have at most {self.most} bytes")
