"""One portion of an upload: from the client into the storage, confirmed as it becomes safe."""

from typing import Any

from common.storage.errors import NotFound, StagedBytesLost
from common.storage.resumable import Appender
from common.usage.quota import QuotaExceeded, UploadShare
from gateway.http.errors import TooLarge, TooSlow
from gateway.metrics import TRANSFERRED
from gateway.uploads.bodies import BodyReader, BrokenBody
from gateway.uploads.digests import RunningDigest
from gateway.uploads.errors import WrongChecksum
from gateway.uploads.lease import Lease
from gateway.uploads.protocol import Checksum


class WrongDigest(Exception):
    """The whole file is not the one that was announced."""


class Portion:
    """Bytes of an upload, from where it stands; for one `receive`."""

    def __init__(
        self, lease: Lease, appender: Appender, share: UploadShare, checksum: Checksum | None
    ) -> None:
        upload = lease.upload
        self._lease = lease
        self._appender = appender
        self._share = share
        self._is_checked = checksum is not None
        self._length = upload.length
        self._end = self._confirmed = self._ready = upload.received
        self._expected = upload.expected_sha256
        self._digest = RunningDigest(
            upload.digest_state, upload.received, step=appender.step, checksum=checksum
        )

    async def receive(self, reader: BodyReader) -> None:
        """Append the body, and confirm it.

        Raises `WrongChecksum`, after which nothing of the portion is confirmed, and `WrongDigest`;
        what the body and the storage raise, once what came before is confirmed.
        """
        try:
            async with self._lease.renewed(self._confirmable):
                failure = await self._take(reader)
        except (NotFound, StagedBytesLost):
            raise  # the caller ends the upload, by the lease
        except Exception:
            if self._lease.is_held and not self._is_checked:
                await self._lease.confirm(self._confirmable(), ends=True)
            raise
        await self._conclude()
        if failure is not None and self._end < self._length:
            raise failure

    async def _take(self, reader: BodyReader) -> Exception | None:
        """Append the body; returns what broke it, where that leaves what came before."""
        failure: Exception | None = None
        try:
            await self._read(reader)
        except (BrokenBody, TooSlow, QuotaExceeded) as error:
            if self._is_checked:
                raise
            failure = error
        await self._digest.finish()
        if not self._digest.fits:
            raise WrongChecksum("The bytes do not have the checksum that was sent")
        await self._appender.settle()
        return failure

    async def _read(self, reader: BodyReader) -> None:
        while piece := await reader.read():
            TRANSFERRED.labels("in").inc(len(piece))
            if self._end + len(piece) > self._length:
                raise TooLarge(f"The upload has {self._length} bytes, and the body goes beyond")
            await self._share.add(len(piece))
            await self._digest.feed(piece)
            await self._appender.write(piece)
            self._end += len(piece)
            self._note_ready()
            self._lease.moved(self._ready)

    def _note_ready(self) -> None:
        """Note what is safe once its digest is known, too; all of the file is left to the end."""
        safe = self._appender.safe
        if safe < self._length and self._digest.has_state(safe):
            self._ready = safe

    def _confirmable(self) -> dict[str, Any]:
        """What is ready; nothing of a portion whose checksum is still to be compared."""
        if self._is_checked:
            return {}
        self._note_ready()
        return self._confirmed_at(self._ready)

    def _confirmed_at(self, offset: int) -> dict[str, Any]:
        self._share.stage(offset - self._confirmed)
        self._confirmed = offset
        return {"received": offset, "digest_state": self._digest.take_state(offset)}

    async def _conclude(self) -> None:
        values = self._confirmed_at(self._end)
        if self._end == self._length:
            values["sha256"] = sha256 = self._digest.hexdigest()
            if self._expected not in {None, sha256}:
                raise WrongDigest("The file does not have the SHA-256 that was announced")
        await self._lease.confirm(values, ends=self._end < self._length)
