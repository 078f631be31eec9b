"""A user's files. Every response is compared with what the user has stored."""

import io
import random
import zipfile
from typing import Any, Final

from benchmarks.soak.client import Client, Response

LARGE_FOLDER: Final = "data/large"
LARGE_FILE: Final = f"{LARGE_FOLDER}/movie.tif"

_INPUTS: Final = {"config/exp1/param.yaml": 200, "data/exp1/frames.mat": 8_000}
"""The inputs of every job, and their sizes in bytes."""

_SMALL: Final = (200, 60_000)
_LARGE: Final = 16 << 20
_FOLDERS: Final = 4
_FILES: Final = 8
_PATTERN: Final = 4_096
_CUT: Final = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="cut.bin"\r\n\r\n'
_CUT_AFTER: Final = 300_000
_READ: Final = 100_000


def _content(seed: int, size: int) -> bytes:
    pattern = random.Random(seed).randbytes(_PATTERN)
    return (pattern * (size // _PATTERN + 1))[:size]


class Files:
    """`known` has the seed and the size of each file by its path."""

    def __init__(self, client: Client, chance: random.Random) -> None:
        self._client = client
        self._chance = chance
        self.known: dict[str, tuple[int, int]] = {}

    async def add_inputs(self) -> None:
        """Upload the inputs of jobs, which stay."""
        for path, size in _INPUTS.items():
            await self._upload("upload", path, size)

    async def upload(self) -> None:
        await self._upload("upload", self._free_path(), self._chance.randint(*_SMALL))

    async def upload_large(self) -> None:
        await self._upload("upload of 16 MiB", LARGE_FILE, _LARGE)

    async def upload_by_link(self) -> None:
        """Request an upload link and follow it, as clients do."""
        path = self._free_path()
        kind, target = "upload link", f"/files/{path.rpartition('/')[0]}/url"
        link = (await self._client.send(kind, "POST", target, expected=(201,))).json
        url = link["url"].removeprefix(self._client.url)
        await self._upload(
            "upload", path, self._chance.randint(*_SMALL), link["method"], url, link["headers"]
        )

    async def _upload(
        self, kind: str, path: str, size: int, method: str = "POST", target: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        seed = self._chance.getrandbits(32)
        folder, _, name = path.rpartition("/")
        target = target or f"/files/{folder}/upload"
        file = (name, _content(seed, size))
        response = await self._client.send(
            kind, method, target, file=file, headers=headers, expected=(201,)
        )
        self.known[path] = (seed, size)
        if response.status == 201:
            self._client.check(kind, response.json["path"] == path, f"{path}: {response.json}")

    async def abort_upload(self) -> None:
        """Break off in the middle; later listings show whether anything was left."""
        body = _CUT + bytes(_CUT_AFTER)
        await self._client.abort("upload, aborted", "POST", "/files/data/set0/upload", body=body)

    async def download(self) -> None:
        if path := self._any_path():
            target = f"/files/{path}/download"
            response = await self._download("download", path, target)
            tag = {**self._client.headers, "If-None-Match": response.headers.get("ETag", "")}
            kind = "download, unchanged"
            await self._client.send(kind, "GET", target, headers=tag, expected=(304,))

    async def download_large(self) -> None:
        if LARGE_FILE in self.known:
            target = f"/files/{LARGE_FILE}/download"
            await self._download("download of 16 MiB", LARGE_FILE, target)

    async def download_range(self) -> None:
        if path := self._any_path():
            kind, target = "download of a range", f"/files/{path}/download"
            part = {**self._client.headers, "Range": "bytes=100-179"}
            response = await self._client.send(kind, "GET", target, headers=part, expected=(206,))
            wanted = _content(*self.known[path])[100:180]
            self._client.check(kind, response.body == wanted, f"{path}: other bytes")
            await self._client.send("HEAD of a file", "HEAD", target)

    async def download_by_link(self) -> None:
        if path := self._any_path():
            link = (await self._client.send("download link", "GET", f"/files/{path}/url")).json
            url = link["url"].removeprefix(self._client.url)
            await self._download("download", path, url, link["headers"])

    async def _download(
        self, kind: str, path: str, target: str, headers: dict[str, str] | None = None
    ) -> Response:
        response = await self._client.send(kind, "GET", target, headers=headers)
        wanted = _content(*self.known[path])
        self._client.check(kind, response.body == wanted, f"{path}: other bytes")
        return response

    async def abort_download(self) -> None:
        """Break off the download of the large file, or of an archive with it."""
        if LARGE_FILE in self.known:
            target = f"/files/{self._chance.choice([LARGE_FILE, LARGE_FOLDER])}/download"
            await self._client.abort("download, aborted", "GET", target, after=_READ)

    async def zip(self) -> None:
        if path := self._any_path():
            folder = path.rpartition("/")[0]
            response = await self._client.send("zip", "GET", f"/files/{folder}/download")
            with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
                found = {f"{folder}/{name}": archive.read(name) for name in names}
            wanted = {path: _content(*self.known[path]) for path in self._below(folder)}
            self._client.check("zip", found == wanted, f"{folder}: {sorted(found)}")

    async def list_folder(self) -> None:
        folder = self._any_folder()
        held, target = self._below(folder), f"/files/{folder}/"
        expected = (200,) if held else (200, 404)
        response = await self._client.send("listing", "GET", target, expected=expected)
        if response.status == 200:
            right = _paths(response.json) == held
            self._client.check("listing", right, f"{folder}: {response.json}")

    async def list_all(self) -> None:
        kind, target = "recursive listing", "/files/?recursive=true&show_dirs=false"
        response = await self._client.send(kind, "GET", target)
        found = {p for p in _paths(response.json) if p.startswith(("config/", "data/"))}
        differing = found ^ self.known.keys()
        self._client.check(kind, not differing, f"{differing} differ")

    async def rename(self) -> None:
        source, target = self._any_path(), self._free_path()
        if source and source != target:
            body = {"path": target}
            await self._client.send("rename", "PUT", f"/files/{source}", json=body, repeated=(404,))
            self.known[target] = self.known.pop(source)

    async def delete(self) -> None:
        if path := self._any_path():
            await self._delete("deletion", path)

    async def delete_folder(self) -> None:
        """Delete a folder of small files, or the one with the large file."""
        folder = self._chance.choice([self._any_folder(), LARGE_FOLDER])
        await self._delete("deletion of a directory", f"{folder}/")

    async def make_folder(self) -> None:
        path = f"config/empty{self._chance.randrange(_FOLDERS)}/"
        kind, target = "new directory", f"/files/{path}"
        await self._client.send(kind, "POST", target, expected=(201,), repeated=(409,))
        await self._delete("deletion of a directory", path)

    async def _delete(self, kind: str, path: str) -> None:
        for known in [known for known in self.known if known.startswith(path)]:
            del self.known[known]
        target = f"/files/{path}"
        await self._client.send(kind, "DELETE", target, expected=(204,), repeated=(404,))

    def _any_folder(self) -> str:
        kind = self._chance.choice(["config", "data"])
        return f"{kind}/set{self._chance.randrange(_FOLDERS)}"

    def _free_path(self) -> str:
        """A path for a small file; an existing file there is replaced."""
        return f"{self._any_folder()}/file{self._chance.randrange(_FILES)}.bin"

    def _any_path(self) -> str | None:
        """The path of a small file that is no job's input."""
        found = [path for path in self.known if "/set" in path]
        return self._chance.choice(found) if found else None

    def _below(self, folder: str) -> list[str]:
        return sorted(path for path in self.known if path.startswith(f"{folder}/"))


def _paths(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["path"] for entry in entries if entry["type"] == "file"]
