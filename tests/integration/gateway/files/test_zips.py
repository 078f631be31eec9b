"""Directories as zip archives."""

import errno
import http.client
import io
import os
import zipfile
from urllib.parse import quote

import pytest
import requests

from common.storage.local.file import LocalFile
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Issuer, Reply, on_both_storages


def contents(reply: Reply) -> dict[str, bytes]:
    assert reply.status == 200, reply
    assert reply.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@on_both_storages
def test_a_directory_comes_whole(api: Api) -> None:
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


def test_an_empty_directory_is_an_empty_archive(api: Api) -> None:
    (api.tree / "data/x").mkdir()
    assert contents(api.get("/files/data/x/download")) == {}


def test_the_root_and_the_predefined_directories_come_too(api: Api) -> None:
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
def test_an_archive_has_the_directorys_name(api: Api, name: str, header: str) -> None:
    (api.tree / "data" / name).mkdir()
    reply = api.get(f"/files/data/{quote(name)}/download")
    assert reply.headers["content-disposition"] == header


@pytest.mark.parametrize("moment", [-(10**9), 0, 2**32, 2**35])
def test_files_of_any_age_can_be_packed(api: Api, moment: int) -> None:
    path = api.plant("data/x/f", b"old")
    os.utime(path, (moment, moment))
    assert contents(api.get("/files/data/x/download")) == {"f": b"old"}


def test_links_and_names_that_are_none_are_left_out(api: Api) -> None:
    directory = api.plant("data/x/f", b"1").parent
    (directory / "link").symlink_to("/etc/passwd")
    (directory / "folder").symlink_to("/etc")
    with open(os.fsencode(directory) + b"/\xff", "wb") as file:
        file.write(b"2")
    assert contents(api.get("/files/data/x/download")) == {"f": b"1"}


def test_many_files_of_all_sizes_in_many_directories_come_whole(api: Api) -> None:
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


def test_a_failure_in_the_middle_breaks_the_connection(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "the disk is broken")

    api.plant("data/x/a.txt", b"fine")
    api.plant("data/x/b.bin", b"b" * 3_000_000)
    monkeypatch.setattr(LocalFile, "_read_chunk", fail)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        api.get("/files/data/x/download")
    monkeypatch.undo()
    assert len(contents(api.get("/files/data/x/download"))) == 2


def test_limits_are_kept(start_gateway: StartGateway, issuer: Issuer) -> None:
    api = Api(start_gateway(MAX_ZIP_FILES="2"), "somebody", issuer.token("somebody"))
    api.plant("data/x/1")
    api.plant("data/x/2")
    assert len(contents(api.get("/files/data/x/download"))) == 2
    api.plant("data/x/3")
    assert api.get("/files/data/x/download").status == 413
    assert api.get("/files/data/x/3/download").status == 200
