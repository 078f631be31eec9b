"""Digests of an upload's bytes, computed in threads while the next bytes arrive."""

import asyncio
import hashlib
from typing import Protocol

from common.runtime.sha256 import Sha256
from gateway.uploads.protocol import Checksum


class Digest(Protocol):
    """A hash of the bytes so far."""

    def update(self, data: bytearray, /) -> None: ...

    def digest(self) -> bytes: ...


class RunningDigest:
    """The SHA-256 of an upload's bytes so far, and a portion's checksum: of the first portion that
    may be the same.

    The states at the end of each piece, and at each multiple of `step`, are kept until they are
    taken: from any of them another process can go on. Of a portion with a checksum only the last
    one is: nothing before its end is taken.
    """

    def __init__(self, state: bytes, offset: int, *, step: int, checksum: Checksum | None) -> None:
        self._sha256 = Sha256(state)
        self._offset = offset
        self._step = step
        self._states = {offset: state}
        self._checksum = checksum
        self._portion: Digest = self._sha256
        if checksum is not None and (offset or checksum.algorithm != "sha256"):
            # not for security: the client chooses the algorithm
            self._portion = hashlib.new(checksum.algorithm, usedforsecurity=False)
        self._job: asyncio.Future[None] | None = None

    async def feed(self, piece: bytearray) -> None:
        """Add bytes, which nobody may change any more, once those before have been added."""
        await self.finish()
        self._job = asyncio.ensure_future(asyncio.to_thread(self._add, piece))

    async def finish(self) -> None:
        """Wait until all bytes have been added."""
        if self._job is not None:
            await self._job
            self._job = None

    def _add(self, piece: bytearray) -> None:
        if self._portion is not self._sha256:
            self._portion.update(piece)
        begin = 0
        while begin < len(piece):
            end = min(len(piece), begin + self._step - self._offset % self._step)
            self._sha256.update(piece, begin, end)
            self._offset += end - begin
            if self._checksum is not None:
                self._states.clear()
            self._states[self._offset] = self._sha256.state()
            begin = end

    def has_state(self, offset: int) -> bool:
        return offset in self._states

    def take_state(self, offset: int) -> bytes:
        """The state at an offset that bytes have reached; earlier ones are dropped."""
        state = self._states[offset]
        for other in [other for other in list(self._states) if other < offset]:
            del self._states[other]
        return state

    def hexdigest(self) -> str:
        return self._sha256.digest().hex()

    @property
    def fits(self) -> bool:
        """Whether the portion has its checksum, if there is one."""
        return self._checksum is None or self._portion.digest() == self._checksum.digest
