"""What a user does with files; every answer is compared with what the user knows to be there."""

import io
import random
import zipfile
from typing import Any, Final

import aiohttp

from benchmarks.steady.requests import Client

SMALL: Final = (200, 60_000)
"""Least and largest size of a small file, in bytes."""

LARGE: Final = 16 << 20
"""Size of a large file, in bytes."""

MOVIE_FOLDER: Final = "data/large"
MOVIE: Final = f"{MOVIE_FOLDER}/movie.tif"
"""Where the large file is."""

INPUTS: Final = {"config/exp1/param.yaml": 200, "data/exp1/frames.mat": 8_000}
"""The inputs of every job, and their sizes."""

_SETS: Final = 4
_FILES: Final = 8
_PATTERN: Final = 4_096


def content(seed: int, size: int) -> bytes:
    """The bytes of a file."""
    pattern = random.Random(seed).randbytes(_PATTERN)
    return (pattern * (size // _PATTERN + 1))[:size]


class Files:
    """The user's own part of the tree: `known` has seed and size of each file by its path."""

    def __init__(self, client: Client, chance: random.Random) -> None:
        self._client = client
        self._chance = chance
        self.known: dict[str, tuple[int, int]] = {}

    async def add_inputs(self) -> None:
        """Upload what jobs need; it stays."""
        for path, size in INPUTS.items():
            await self._store("upload", path, size)

    async def upload(self) -> None:
        await self._store("upload", self._free_place(), self._chance.randint(*SMALL))

    async def upload_large(self) -> None:
        await self._store("upload of 16 MiB", MOVIE, LARGE)

    async def upload_by_link(self) -> None:
        """Ask how to upload, and do what the answer says, as the clients do."""
        path = self._free_place()
        folder, _, name = path.rpartition("/")
        asked = await self._client.send(
            "upload link", "POST", f"/files/{folder}/url", expected=(201,)
        )
        if asked.status != 201:
            return
        seed, size = self._chance.getrandbits(32), self._chance.randint(*SMALL)
        link = asked.json
        await self._client.send(
            "upload",
            link["method"],
            link["url"].removeprefix(self._client.url),
            headers=link["headers"],
            data=_form(name, content(seed, size)),
            expected=(201,),
        )
        self.known[path] = (seed, size)

    async def download(self) -> None:
        path = self._some()
        if path is None:
            return
        got = await self._client.send("download", "GET", f"/files/{path}/download")
        self._compare("download", path, got.body)
        tag = {"If-None-Match": got.headers.get("ETag", "")}
        await self._client.send(
            "download, unchanged",
            "GET",
            f"/files/{path}/download",
            headers=self._client.headers | tag,
            expected=(304,),
        )

    async def download_large(self) -> None:
        if MOVIE in self.known:
            got = await self._client.send("download of 16 MiB", "GET", f"/files/{MOVIE}/download")
            self._compare("download of 16 MiB", MOVIE, got.body)

    async def download_part(self) -> None:
        path = self._some()
        if path is None:
            return
        part = {"Range": "bytes=100-179"}
        got = await self._client.send(
            "download of a part",
            "GET",
            f"/files/{path}/download",
            headers=self._client.headers | part,
            expected=(206,),
        )
        wanted = content(*self.known[path])[100:180]
        self._client.check("download of a part", got.body == wanted, f"{path}: other bytes")
        await self._client.send("HEAD of a file", "HEAD", f"/files/{path}/download")

    async def download_by_link(self) -> None:
        path = self._some()
        if path is None:
            return
        link = (await self._client.send("download link", "GET", f"/files/{path}/url")).json
        got = await self._client.send(
            "download",
            link["method"],
            link["url"].removeprefix(self._client.url),
            headers=link["headers"],
        )
        self._compare("download", path, got.body)

    async def zip(self) -> None:
        path = self._some()
        if path is None:
            return
        folder = path.rpartition("/")[0]
        held = self._below(folder)
        got = await self._client.send("zip", "GET", f"/files/{folder}/download")
        with zipfile.ZipFile(io.BytesIO(got.body)) as packed:
            found = {f"{folder}/{name}": packed.read(name) for name in packed.namelist()}
        files = {path: body for path, body in found.items() if not path.endswith("/")}
        wanted = {path: content(*self.known[path]) for path in held}
        self._client.check("zip", files == wanted, f"{folder}: {sorted(files)}")

    async def list_folder(self) -> None:
        folder = self._set()
        held = self._below(folder)
        got = await self._client.send(
            "listing", "GET", f"/files/{folder}/", expected=(200,) if held else (200, 404)
        )
        if got.status == 200:
            self._client.check("listing", _paths(got.json) == held, f"{folder}: {got.json}")

    async def list_everything(self) -> None:
        got = await self._client.send(
            "recursive listing", "GET", "/files/?recursive=true&show_dirs=false"
        )
        mine = [path for path in _paths(got.json) if path.startswith(("config/", "data/"))]
        wanted = sorted(self.known)
        self._client.check("recursive listing", mine == wanted, f"{set(mine) ^ set(wanted)} differ")

    async def rename(self) -> None:
        path = self._some()
        if path is None:
            return
        target = self._free_place()
        if target == path:
            return
        await self._client.send("rename", "PUT", f"/files/{path}", json={"path": target})
        self.known[target] = self.known.pop(path)

    async def delete(self) -> None:
        path = self._some()
        if path is not None:
            del self.known[path]
            await self._client.send("deletion", "DELETE", f"/files/{path}", expected=(204,))

    async def delete_folder(self) -> None:
        """One of many files, or the one with the large file."""
        folder = self._chance.choice([self._set(), MOVIE_FOLDER])
        for path in self._below(folder):
            del self.known[path]
        await self._client.send(
            "deletion of a directory", "DELETE", f"/files/{folder}/", expected=(204,)
        )

    async def make_folder(self) -> None:
        path = f"/files/config/empty{self._chance.randrange(_SETS)}/"
        await self._client.send("new directory", "POST", path, expected=(201,))
        await self._client.send("deletion of a directory", "DELETE", path, expected=(204,))

    async def _store(self, kind: str, path: str, size: int) -> None:
        seed = self._chance.getrandbits(32)
        folder, _, name = path.rpartition("/")
        got = await self._client.send(
            kind,
            "POST",
            f"/files/{folder}/upload",
            data=_form(name, content(seed, size)),
            expected=(201,),
        )
        self.known[path] = (seed, size)
        if got.status == 201:
            self._client.check(kind, got.json["path"] == path, f"{path}: {got.json}")

    def _compare(self, kind: str, path: str, body: bytes) -> None:
        self._client.check(kind, body == content(*self.known[path]), f"{path}: other bytes")

    def _set(self) -> str:
        kind = self._chance.choice(["config", "data"])
        return f"{kind}/set{self._chance.randrange(_SETS)}"

    def _free_place(self) -> str:
        """A place in one of the sets; a file that stands there is replaced."""
        return f"{self._set()}/file{self._chance.randrange(_FILES)}.bin"

    def _below(self, folder: str) -> list[str]:
        return sorted(path for path in self.known if path.startswith(f"{folder}/"))

    def _some(self) -> str | None:
        """A small file that no job needs."""
        found = [path for path in self.known if "/set" in path]
        return self._chance.choice(found) if found else None


def _form(name: str, body: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(body), filename=name)
    return form


def _paths(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["path"] for entry in entries if entry["type"] == "file"]
