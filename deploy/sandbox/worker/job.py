"""A job from its pull to its last report."""

import asyncio
import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from deploy.sandbox.worker.command import Command, environment
from deploy.sandbox.worker.connection import JobGoneError, PeerConnection, TransferError

LOG_NAME: Final = "job.log"
_TAIL_LINES: Final = 25
_TAIL_BYTES: Final = 8_192


class JobFailedError(Exception):
    """The job has failed; the message is a sentence for its log."""


@dataclass(frozen=True)
class Mount:
    """A job's folder with the layout of the container's mount."""

    root: Path
    uploads: dict[str, str]

    @property
    def log(self) -> Path:
        return self.place(self.uploads["log"]) / LOG_NAME

    def place(self, path: str) -> Path:
        """The place of `path` in the mount. Raises `JobFailedError` if it is outside."""
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
            raise JobFailedError(f"refused a path that leads out of the work folder: {path!r}")
        return self.root.joinpath(*pure.parts)


async def run_job(
    peer: PeerConnection, job: dict[str, Any], *, workspace: Path, keep_alive: float
) -> str:
    """Run a pulled job; returns `finished`, `error` or `gone`."""
    folder = Path(tempfile.mkdtemp(prefix=f"job-{job['id']}-", dir=workspace))
    uploads = {"log": "log", **job["job"]["handler"]["files_up"]}
    try:
        return await _Run(peer, job, Mount(folder, uploads), keep_alive).through()
    except JobGoneError:
        return "gone"
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)


class _Run:
    def __init__(
        self, peer: PeerConnection, job: dict[str, Any], mount: Mount, keep_alive: float
    ) -> None:
        self._peer = peer
        self._id: int = job["id"]
        self._job = job["job"]
        self._mount = mount
        self._keep_alive = keep_alive

    async def through(self) -> str:
        failed = False
        await self._report("pulled")
        await self._report("preprocessing")
        try:
            await self._prepare()
            await self._report("running")
            await self._execute()
        except (JobFailedError, TransferError) as error:
            failed = True
            self._log(str(error))
            await self._report("error")
        await self._report("postprocessing")
        try:
            await self._upload_results()
        except (JobFailedError, TransferError) as error:
            failed = True
            self._log(str(error))
        if failed:
            await self._report("error", self._tail())
            return "error"
        await self._report("finished")
        return "finished"

    async def _report(self, status: str, details: str | None = None) -> None:
        await self._peer.report(self._id, status, details)

    async def _prepare(self) -> None:
        for folder in self._mount.uploads.values():
            self._mount.place(folder).mkdir(parents=True, exist_ok=True)
        for path in self._job["handler"]["files_down"]:
            target = self._mount.place(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            await self._peer.download(self._id, path, target)

    async def _execute(self) -> None:
        app = self._job["app"]
        command = await Command.start(
            app["cmd"],
            variables=environment(app.get("env") or {}, self._mount.root),
            folder=self._mount.root,
            log=self._mount.log,
        )
        heart = asyncio.create_task(self._beat())
        ending = asyncio.create_task(command.wait())
        try:
            await asyncio.wait({heart, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                heart.result()  # raises the reason: the job is gone, or the peer unreachable
            status = ending.result()
        finally:
            heart.cancel()
            await command.kill()
            await asyncio.gather(heart, ending, return_exceptions=True)
        if status != 0:
            why = f"status {status}" if status > 0 else f"signal {-status}"
            raise JobFailedError(f"the command ended with {why}")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._keep_alive)
            await self._report("running")

    async def _upload_results(self) -> None:
        for kind, folder in self._mount.uploads.items():
            root = self._mount.place(folder)
            for source in sorted(root.rglob("*")):
                if source.is_file() and not source.is_symlink():
                    path = source.relative_to(root).as_posix()
                    await self._peer.upload(self._id, kind, path, source)

    def _log(self, sentence: str) -> None:
        with contextlib.suppress(OSError, JobFailedError):
            self._mount.log.parent.mkdir(parents=True, exist_ok=True)
            with self._mount.log.open("a", encoding="utf-8") as log:
                log.write(f"worker: {sentence}\n")

    def _tail(self) -> str:
        try:
            text = self._mount.log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace")
        except OSError:
            return "the job left no log"
        return "\n".join(text.splitlines()[-_TAIL_LINES:])
