"""Directories as zip archives."""

import http.client
import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from common.storage.local.storage import LocalStorage
from common.storage.paths import UserPath
from gateway.files import downloads
from gateway.trees import zips
from tests.support.gateway import Api, Reply, on_both_storages


def contents(reply: Reply) -> dict[str, bytes]:
    assert reply.status == 200, reply
    assert reply.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@on_both_storages
def test_an_archive_holds_the_whole_directory(api: Api) -> None:
    large = bytes(range(256)) * 1_000
    api.upload("data/x", "a.txt", b"aaa")
    api.upload(quote("data/x/ü"), "ü 'q' 漢;%.tiff", large)
    api.upload("data/x/deep/er", "c", b"")
    api.post("/files/data/x/hollow/")
    for slash in ("", "/"):
        reply = api.get(f"/files/data/x{slash}/download")
        assert contents(reply) == {
            "a.txt": b"aaa", "deep/": b"", "deep/er/": b"", "deep/er/c": b"", "hollow/": b"",
            "ü/": b"", "ü/ü 'q' 漢;%.tiff": large,
        }  # fmt: skip
        assert reply.headers["content-disposition"] == 'attachment; filename="x.zip"'
    head = api.send("HEAD", "/files/data/x/download")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == "application/zip"
    two_steps = requests.request(**api.get("/files/data/x/url").json(), timeout=30)
    assert zipfile.ZipFile(io.BytesIO(two_steps.content)).testzip() is None


def test_the_root_and_the_predefined_directories_are_archived(api: Api) -> None:
    api.plant("data/f", b"1")
    everything = contents(api.get("/files//download"))
    assert set(everything) == {"artifact/", "config/", "data/", "data/f", "log/", "output/"}
    reply = api.get("/files/data/download")
    assert contents(reply) == {"f": b"1"}
    assert 'filename="data.zip"' in reply.headers["content-disposition"]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("ü", "attachment; filename=\"_.zip\"; filename*=UTF-8''%C3%BC.zip"),
        ('q"', "attachment; filename=\"q_.zip\"; filename*=UTF-8''q%22.zip"),
    ],
)
def test_an_archive_of_an_empty_directory_is_empty_but_has_its_name(
    api: Api, name: str, header: str
) -> None:
    (api.tree / "data" / name).mkdir()
    reply = api.get(f"/files/data/{quote(name)}/download")
    assert contents(reply) == {}
    assert reply.headers["content-disposition"] == header


@pytest.mark.parametrize("moment", [-(10**9), 0, 2**32, 2**35])
def test_files_of_any_age_can_be_packed(api: Api, moment: int) -> None:
    path = api.plant("data/x/f", b"old")
    os.utime(path, (moment, moment))
    assert contents(api.get("/files/data/x/download")) == {"f": b"old"}


def test_links_and_unusable_names_are_omitted(api: Api) -> None:
    directory = api.plant("data/x/f", b"1").parent
    (directory / "link").symlink_to("/etc/passwd")
    (directory / "folder").symlink_to("/etc")
    with open(os.fsencode(directory) + b"/\xff", "wb") as file:
        file.write(b"2")
    assert contents(api.get("/files/data/x/download")) == {"f": b"1"}


def test_many_files_of_all_sizes_in_many_directories_are_archived(api: Api) -> None:
    sizes = [0, 1, 100, 65_535, 65_536, 65_537, 200_000, 3_000_000]
    planted = {
        f"{folder}/{number:02}": bytes([number]) * sizes[(folder + number) % len(sizes)]
        for folder in range(3)
        for number in range(40)
    }
    for name, content in planted.items():
        api.plant(f"data/x/{name}", content)
    found = contents(api.get("/files/data/x/download"))
    assert found == {**planted, "0/": b"", "1/": b"", "2/": b""}
    assert list(found) == sorted(found)


def test_limits_are_kept(api_with: Callable[..., Api]) -> None:
    api = api_with(MAX_ZIP_FILES="2")
    api.plant("data/x/1")
    api.plant("data/x/2")
    assert len(contents(api.get("/files/data/x/download"))) == 2
    api.plant("data/x/3")
    assert api.get("/files/data/x/download").status == 413
    assert api.get("/files/data/x/3/download").status == 200


@on_both_storages
def test_the_length_of_an_archive_of_few_entries_is_said(api: Api) -> None:
    api.upload("data/x", "small", b"aaa")
    api.upload(quote("data/x/ü"), "large", bytes(300_000))
    api.post("/files/data/x/hollow/")
    reply = api.get("/files/data/x/download")
    assert set(contents(reply)) == {"hollow/", "small", "ü/", "ü/large"}
    assert reply.headers["content-length"] == str(len(reply.body))
    head = api.send("HEAD", "/files/data/x/download")
    assert head.headers["content-length"] == str(len(reply.body))


@on_both_storages
def test_a_download_is_unpacked_from_a_pipe(api: Api, tmp_path: Path) -> None:
    if shutil.which("jar") is None:
        pytest.skip("jar (a JDK) is not installed")
    files = {"small": b"aaa", "large": bytes(range(256)) * 5_000}
    for name, content in files.items():
        api.upload("data/x", name, content)
    body = api.get("/files/data/x/download").body
    subprocess.run(["jar", "x"], input=body, cwd=tmp_path, check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_an_archive_of_many_entries_says_no_length(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zips, "_MOST_LISTED", 3)
    for number in range(4):
        api.plant(f"data/x/{number}", b"1")
    reply = api.get("/files/data/x/download")
    assert set(contents(reply)) == {"0", "1", "2", "3"}
    assert "content-length" not in reply.headers


@pytest.fixture(params=[None, 9, 200_001], ids=["deleted", "shorter", "longer"])
def changes_after_the_listing(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], None]:
    """Lets a file be deleted or replaced between the listing and the archive."""
    list_few = zips.list_few

    def change(path: Path) -> None:
        async def list_and_change(packing: zips.Packing) -> list[zips.Member] | None:
            found = await list_few(packing)
            path.unlink()
            if request.param is not None:
                path.write_bytes(bytes(request.param))
            return found

        monkeypatch.setattr(downloads, "list_few", list_and_change)

    return change


def test_an_archive_of_a_tree_that_changes_breaks_off_if_its_length_was_said(
    api: Api, changes_after_the_listing: Callable[[Path], None]
) -> None:
    api.plant("data/x/f", bytes(200_000))
    changes_after_the_listing(api.plant("data/x/g", bytes(200_000)))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        api.get("/files/data/x/download")


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_change_that_is_seen_before_the_head_costs_the_length_only(
    api: Api, changes_after_the_listing: Callable[[Path], None], size: int
) -> None:
    path = api.plant("data/x/f", bytes(size))
    api.plant("data/x/g", bytes(size))
    changes_after_the_listing(path)
    reply = api.get("/files/data/x/download")
    found = {name: len(content) for name, content in contents(reply).items()}
    now = {"f": path.stat().st_size} if path.exists() else {}
    assert found == {**now, "g": size}
    assert "content-length" not in reply.headers


async def test_without_a_listing_a_file_that_is_gone_is_omitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ada" / "data"
    folder.mkdir(parents=True)
    for name in "abc":
        (folder / name).write_bytes(bytes(100_000))
    storage = LocalStorage(str(tmp_path))
    sent = b""
    walk = zips.everything_below(storage, UserPath("ada", ("data",)))
    async for chunk in zips.stream_zip(zips.Packing(storage, "ada", walk)):
        sent += chunk
        (folder / "b").unlink(missing_ok=True)
    assert zipfile.ZipFile(io.BytesIO(sent)).namelist() == ["a", "c"]
