"""Resumable uploads: begin, find, go on, finish, end. Any gateway goes on where another stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from secrets import token_hex

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.runtime.sha256 import Sha256
from common.storage.budget import LARGEST, ChunkBudget
from common.storage.errors import NotFound, StagedBytesLost, StagedFileBusy, StorageError
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger
from common.uploads import placing
from common.uploads.records import Upload, find_upload, forget, insert_upload, take_upload
from common.usage.quota import Quota
from gateway.http.errors import TooLarge
from gateway.http.upload_limits import UploadLimits
from gateway.metrics import TRANSFERS, UPLOADS_ENDED
from gateway.uploads.bodies import Body, BodyReader
from gateway.uploads.errors import (
    UploadBusy,
    UploadExpired,
    UploadNotFound,
    WrongChecksum,
    WrongOffset,
)
from gateway.uploads.lease import Lease, new_owner
from gateway.uploads.protocol import Checksum, NewUpload
from gateway.uploads.receiving import Portion, WrongDigest

log = get_logger()


class ResumableUploads:
    """Uploads of all users; `retention` and `client_timeout` in seconds."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        limits: UploadLimits,
        quota: Quota,
        *,
        retention: float,
        client_timeout: float,
    ) -> None:
        self._database = database
        self._storage = storage
        self._quota = quota
        self._retention = retention
        self._client_timeout = client_timeout
        self._budget = ChunkBudget(largest=LARGEST)
        self.limits = limits

    async def create(
        self, new: NewUpload, body: Body | None = None, checksum: Checksum | None = None
    ) -> Upload:
        """Begin an upload, with its first bytes if there is a body.

        Nothing is left of an upload whose creation fails: its client does not know it. Raises
        `TooLarge`, `QuotaExceeded`, `OutOfSpace`, `PathConflict`, and what `append` raises.
        """
        user = new.path.user
        await self.limits.check(new.length)
        async with self._quota.upload(user) as share:
            await share.expect(new.length)
        await self._storage.ensure_user(user)
        staged = await self._storage.stage(new.path, new.length)
        owner = new_owner()
        try:
            upload = await insert_upload(
                self._database,
                token_hex(16),
                staged,
                sent_metadata=new.sent_metadata,
                expected_sha256=new.expected_sha256,
                owner=owner,
                retention=self._retention,
            )
        except BaseException:
            await self._storage.abandon(staged)
            raise
        lease = Lease(self._database, upload, owner, retention=self._retention, keeps=True)
        try:
            if body is not None and new.length:
                await self._receive(lease, body, checksum)
            elif not new.length:
                await self._complete_empty(lease)
            return await self._finish(lease)
        except BaseException:
            await self._end_quietly(lease)
            raise
        finally:
            await lease.give_back()

    async def find(self, user_id: str, upload_id: str) -> Upload:
        """An upload as it is; one whose last step was interrupted is finished first.

        Raises `UploadNotFound`, `UploadExpired`, and `UploadBusy` during that step.
        """
        upload = await find_upload(self._database, user_id, upload_id)
        if upload is None:
            raise UploadNotFound(upload_id)
        if not upload.is_alive:
            raise UploadExpired("The upload has expired")
        if upload.is_whole and not upload.is_finished:
            async with self._leased(user_id, upload_id) as lease:
                return await self._finish(lease)
        return upload

    async def append(
        self, user_id: str, upload_id: str, offset: int, body: Body, checksum: Checksum | None
    ) -> Upload:
        """Go on with an upload at `offset`.

        Raises as `find` does; `UploadBusy` while another request writes; `WrongOffset`;
        `WrongChecksum`, of the portion or, with the last byte, of the whole file: of that one
        nothing is left; `TooLarge`, `QuotaExceeded`, and errors of the body and of the storage, of
        which all that came before is kept.
        """
        async with self._leased(user_id, upload_id) as lease:
            upload = lease.upload
            if offset != upload.received:
                raise WrongOffset(upload.received)
            if (body.length or 0) > upload.length - offset:
                raise TooLarge(f"The upload has only {upload.length - offset} bytes left")
            if not upload.is_whole:
                await self._receive(lease, body, checksum)
            elif await self._reader(body).read():
                raise TooLarge("The upload has all its bytes")
            return await self._finish(lease)

    async def terminate(self, user_id: str, upload_id: str) -> None:
        """Forget an upload with what has arrived; a finished one's file stays. As `find` raises."""
        async with self._leased(user_id, upload_id) as lease:
            await self._end(lease, "terminated")

    @asynccontextmanager
    async def _leased(self, user_id: str, upload_id: str) -> AsyncIterator[Lease]:
        owner = new_owner()
        upload = await take_upload(self._database, user_id, upload_id, owner)
        if upload is None:
            upload = await find_upload(self._database, user_id, upload_id)
            if upload is None:
                raise UploadNotFound(upload_id)
            if not upload.is_alive:
                raise UploadExpired("The upload has expired")
            raise UploadBusy("Another request writes to the upload")
        lease = Lease(self._database, upload, owner, retention=self._retention)
        try:
            yield lease
        finally:
            await lease.give_back()

    async def _receive(self, lease: Lease, body: Body, checksum: Checksum | None) -> None:
        reader, upload = self._reader(body), lease.upload
        try:
            with TRANSFERS.labels("in").track_inprogress(), self._budget.transfer():
                async with (
                    self._quota.upload(upload.user_id) as share,
                    self._storage.append(upload.staged, upload.received) as appender,
                ):
                    await share.expect(body.length or 0)
                    await Portion(lease, appender, share, checksum).receive(reader)
        except StagedFileBusy as error:
            raise UploadBusy("Another request writes to the upload") from error
        except (NotFound, StagedBytesLost) as error:
            raise await self._lost(lease, error) from error
        except WrongDigest as error:
            await self._end(lease, "mismatched")
            raise WrongChecksum(str(error)) from error

    def _reader(self, body: Body) -> BodyReader:
        return BodyReader(body, self._budget, timeout=self._client_timeout)

    async def _complete_empty(self, lease: Lease) -> None:
        sha256 = Sha256().digest().hex()
        if lease.upload.expected_sha256 not in {None, sha256}:
            raise WrongChecksum("The file does not have the SHA-256 that was announced")
        await lease.confirm({"sha256": sha256})

    async def _finish(self, lease: Lease) -> Upload:
        """Place the file if the upload is whole; the upload as it is then."""
        upload = lease.upload
        if upload.is_finished or not upload.is_whole:
            return upload
        try:
            async with lease.renewed(dict):
                finished = await placing.place(self._database, self._storage, upload, lease.owner)
        except StagedBytesLost as error:
            raise await self._lost(lease, error) from error
        lease.is_held = False
        if finished is None:
            raise UploadBusy("Another request finishes the upload")
        UPLOADS_ENDED.labels("finished").inc()
        return replace(finished, is_alive=True)

    async def _lost(self, lease: Lease, error: StorageError) -> UploadExpired:
        """End an upload whose bytes are gone; the refusal."""
        log.error("upload.lost", upload_id=lease.upload.id, reason=str(error))
        await self._end(lease, "lost")
        return UploadExpired("What had arrived of the upload is lost")

    async def _end(self, lease: Lease, outcome: str) -> None:
        """Remove the upload with what is staged of it."""
        if not lease.upload.is_finished:
            await self._storage.abandon(lease.upload.staged)
        await forget(self._database, lease.upload.id, lease.owner)
        lease.is_held = False
        UPLOADS_ENDED.labels(outcome).inc()

    async def _end_quietly(self, lease: Lease) -> None:
        """As `_end`, unless it has ended; what fails is left to the sweep of expired uploads."""
        if not lease.is_held:
            return
        try:
            await asyncio.shield(self._end(lease, "failed"))
        except (StorageError, DatabaseUnavailable) as error:
            log.warning("upload.left", upload_id=lease.upload.id, reason=str(error))
