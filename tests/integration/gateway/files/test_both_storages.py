"""What clients see of their files, the same on the local disk and on S3."""

import io
import zipfile
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.support.gateway import TOP, Api, Reply, job_body, on_both_storages

NAME = "ü 'q' 漢;%.tiff"
CONTENT = b"hello world"
TARGET = "/files/data/x/f.csv/download"


pytestmark = on_both_storages


@pytest.fixture
def owner(api: Api) -> Api:
    """Somebody with a file."""
    assert api.upload("data/x", "f.csv", CONTENT).status == 201
    return api


def download(api: Api, path: str, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.get(f"/files/{quote(path)}/download", headers=named)


# -- listings ------------------------------------------------------------------------------------


def test_a_tree_is_listed_by_levels_and_whole(owner: Api) -> None:
    owner.upload("data/x/deep//er", "g.txt", b"")
    assert owner.post("/files/data/hollow/").status == 201
    assert owner.paths() == TOP
    assert owner.get("/files/data/x").json() == [
        {"path": "data/x/deep/", "type": "directory", "size": ""},
        {"path": "data/x/f.csv", "type": "file", "size": "11 Bytes"},
    ]
    everything = [
        "artifact/", "config/", "data/", "data/hollow/", "data/x/", "data/x/deep/",
        "data/x/deep/er/", "data/x/deep/er/g.txt", "data/x/f.csv", "log/", "output/",
    ]  # fmt: skip
    assert owner.paths("", "?recursive=true") == everything
    files = [path for path in everything if not path.endswith("/")]
    assert owner.paths("", "?recursive=true&show_dirs=false") == files
    for path in ("data/none", "data/x/f.csv", "data/x/f.csv/"):
        assert owner.get(f"/files/{path}").status == 404


@pytest.mark.parametrize("query", ["", "&show_dirs=false", "&details=true"])
@pytest.mark.parametrize("limit", [2, 9, 100])
def test_pages_together_are_the_whole(owner: Api, query: str, limit: int) -> None:
    for path in ("data/a", "data/x/a", "data/x-", quote("config/ü ü")):
        owner.upload(path, "f.txt")
    whole = owner.get(f"/files/?recursive=true{query}").json()
    pages = []
    following = f"/files/?recursive=true{query}&limit={limit}"
    while following:
        reply = owner.get(following)
        pages.append(reply.json())
        link = reply.headers.get("link", "").partition("<")[2].partition(">")[0]
        following = link.removeprefix(owner.gateway.base)
    assert [entry for page in pages for entry in page] == whole
    assert {len(page) for page in pages[:-1]} <= {limit}
    assert pages[-1]


# -- downloads -----------------------------------------------------------------------------------


def test_a_download_tells_everything_about_the_file_and_so_does_head(owner: Api) -> None:
    asked, told = owner.get(TARGET), owner.send("HEAD", TARGET)
    assert (asked.status, asked.body) == (200, CONTENT)
    assert (told.status, told.body) == (200, b"")
    for reply in (asked, told):
        details = owner.get("/files/data/x?details=true").json()[0]
        assert reply.headers["etag"] == f'"{details["etag"]}"'
        assert reply.headers["last-modified"].endswith(" GMT")
        assert {name: reply.headers[name] for name in EXPECTED} == EXPECTED


EXPECTED = {
    "content-type": "text/csv",
    "content-length": "11",
    "accept-ranges": "bytes",
    "cache-control": "private, no-cache",
    "content-disposition": 'attachment; filename="f.csv"',
    "x-content-type-options": "nosniff",
}


@pytest.mark.parametrize("path", ["data/x/none", "none", "data/x/f.csv/x", "data/x/f"])
def test_nothing_cannot_be_downloaded(owner: Api, path: str) -> None:
    for ending in ("download", "url"):
        assert owner.get(f"/files/{path}/{ending}").status == 404
    assert owner.send("HEAD", f"/files/{path}/download").status == 404


@pytest.mark.parametrize(
    ("value", "status", "body", "shown"),
    [
        ("bytes=0-4", 206, b"hello", "bytes 0-4/11"),
        ("bytes=-5", 206, b"world", "bytes 6-10/11"),
        ("bytes=6-", 206, b"world", "bytes 6-10/11"),
        ("bytes=10-900", 206, b"d", "bytes 10-10/11"),
        ("bytes=11-", 416, None, "bytes */11"),
        ("bytes=5-2", 200, CONTENT, None),
    ],
)
def test_a_range(owner: Api, value: str, status: int, body: bytes | None, shown: str) -> None:
    reply = owner.get(TARGET, headers={"Range": value})
    assert (reply.status, reply.headers.get("content-range")) == (status, shown)
    assert body is None or reply.body == body


def test_several_ranges(owner: Api) -> None:
    reply = owner.get(TARGET, headers={"Range": "bytes=6-7, 0-1"})
    assert reply.status == 206
    assert reply.headers["content-type"].startswith("multipart/byteranges; boundary=")
    assert reply.headers["content-length"] == str(len(reply.body))
    assert b"Content-Range: bytes 6-7/11\r\n\r\nwo\r\n" in reply.body
    assert b"Content-Range: bytes 0-1/11\r\n\r\nhe\r\n" in reply.body


def test_a_part_of_a_large_file(api: Api) -> None:
    content = bytes(range(256)) * 20_000
    api.upload("data/x", "large.bin", content)
    assert download(api, "data/x/large.bin").body == content
    part = download(api, "data/x/large.bin", Range="bytes=1000000-3999999")
    assert part.body == content[1_000_000:4_000_000]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If_None_Match": "{ETAG}"}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"x"'}, 200),
        ({"If_Modified_Since": "{DATE}"}, 304),
        ({"If_Modified_Since": "{OLD}"}, 200),
        ({"If_Match": "{ETAG}"}, 200),
        ({"If_Match": '"x"'}, 412),
        ({"If_Unmodified_Since": "{OLD}"}, 412),
        ({"Range": "bytes=0-1", "If_Range": "{ETAG}"}, 206),
        ({"Range": "bytes=0-1", "If_Range": "{DATE}"}, 206),
        ({"Range": "bytes=0-1", "If_Range": '"x"'}, 200),
    ],
    ids=str,
)
def test_conditional_requests(owner: Api, headers: dict[str, str], status: int) -> None:
    known = owner.get(TARGET).headers
    moments = {"ETAG": known["etag"], "DATE": known["last-modified"], "OLD": formatdate(0)}
    asked = {name: value.format(**moments) for name, value in headers.items()}
    assert download(owner, "data/x/f.csv", **asked).status == status


def test_a_replaced_file_has_another_etag(owner: Api) -> None:
    before = owner.get(TARGET).headers["etag"]
    assert owner.get(TARGET).headers["etag"] == before
    owner.upload("data/x", "f.csv", b"another world")
    assert owner.get(TARGET).headers["etag"] != before


def test_a_directory_comes_as_a_zip_with_what_is_hollow(owner: Api) -> None:
    large = bytes(range(256)) * 1_000
    owner.upload(quote("data/x/ü"), NAME, large)
    owner.post("/files/data/x/hollow/")
    for slash in ("", "/"):
        reply = owner.get(f"/files/data/x{slash}/download")
        assert reply.headers["content-type"] == "application/zip"
        assert reply.headers["content-disposition"] == 'attachment; filename="x.zip"'
        with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
            assert archive.testzip() is None
            assert {name: archive.read(name) for name in archive.namelist()} == {
                "f.csv": CONTENT, "hollow/": b"", "ü/": b"", f"ü/{NAME}": large,
            }  # fmt: skip
    assert owner.send("HEAD", "/files/data/x/download").status == 200


# -- the two-step protocol, with the library that clients use ------------------------------------


def send(answer: dict[str, Any], **more: Any) -> requests.Response:
    return requests.request(**answer, **more, timeout=30)


@pytest.mark.parametrize("name", ["plain.txt", NAME])
@pytest.mark.parametrize("glue", ["/", "//"])
def test_both_steps_work_word_for_word(api: Api, name: str, glue: str) -> None:
    asked = api.post(f"/files/data/x{glue}url")
    assert asked.status == 201
    assert set(asked.json()) == {"method", "url", "headers", "data"}
    assert send(asked.json(), files={"file": (name, CONTENT)}).status_code in {201, 204}
    assert api.paths("data/x") == [f"data/x/{name}"]
    own = download(api, f"data/x/{name}")
    asked = api.get(f"/files/data/x/{quote(name)}/url")
    got = send(asked.json())
    assert (got.status_code, got.content) == (200, own.body) == (200, CONTENT)
    for header in ("Content-Disposition", "Content-Type", "Cache-Control", "Content-Length"):
        assert got.headers[header] == own.headers[header.lower()], header


def test_a_directory_is_downloaded_by_two_steps_too(owner: Api) -> None:
    got = send(owner.get("/files/data/x/url").json())
    assert zipfile.ZipFile(io.BytesIO(got.content)).namelist() == ["f.csv"]


# -- changes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("directory", ["data/x/f.csv", "data/x/f.csv/deep"])
def test_a_file_in_the_way_is_a_conflict(owner: Api, directory: str) -> None:
    assert owner.upload(directory, "g").status == 409
    for ending in ("", "url"):
        assert owner.post(f"/files/{directory}/{ending}").status == 409
    assert owner.upload("data/", "x").status == 409
    assert owner.paths("data", "?recursive=true") == ["data/x/", "data/x/f.csv"]


def test_an_upload_that_breaks_off_leaves_nothing(api: Api) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nhalf a fi'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    assert api.post("/files/data/x/upload", body=body, headers=kind).status == 422
    assert api.paths("data") == []


def test_files_and_hollow_directories_move(owner: Api) -> None:
    owner.post("/files/data/hollow/")
    moves = [("data/x/f.csv", "artifact/y/g.csv"), ("data/hollow", "data/new/place")]
    for source, target in moves:
        reply = owner.put(f"/files/{source}", json={"path": target})
        assert (reply.status, reply.json()["path"].rstrip("/")) == (200, target)
    assert owner.paths("", "?recursive=true&show_dirs=false") == ["artifact/y/g.csv"]
    assert owner.paths("data", "?recursive=true") == ["data/new/", "data/new/place/", "data/x/"]


@pytest.mark.parametrize(
    ("source", "target", "status"),
    [
        ("data/none", "data/y", 404), ("data/x", "data/y", 405), ("log", "data/y", 405),
        ("data/x/f.csv", "elsewhere", 422), ("data/x/f.csv", "data/../y", 422),
        ("data/x/f.csv", "data/x", 409), ("data/x/f.csv", "data/x/f.csv/y", 409),
    ],
)  # fmt: skip
def test_a_refused_move_leaves_everything(
    owner: Api, source: str, target: str, status: int
) -> None:
    before = owner.paths("", "?recursive=true")
    assert owner.put(f"/files/{source}", json={"path": target}).status == status
    assert owner.paths("", "?recursive=true") == before


def test_a_file_that_is_there_is_kept_where_that_is_asked_for(owner: Api) -> None:
    owner.upload("data/x", "g.csv", b"kept")
    only_new = {"If-None-Match": "*"}
    move = {"json": {"path": "data/x/g.csv"}}
    assert owner.put("/files/data/x/f.csv", headers=only_new, **move).status == 412
    assert download(owner, "data/x/g.csv").body == b"kept"
    assert owner.put("/files/data/x/f.csv", **move).status == 200
    assert download(owner, "data/x/g.csv").body == CONTENT


def test_deletions_always_succeed_and_the_predefined_directories_stay(owner: Api) -> None:
    owner.upload("data/x/deep", "g")
    owner.upload("config/", "c")
    for path in ("data/x/f.csv", "data/none", "data/none/", "nowhere/"):
        assert owner.delete(f"/files/{path}").status == 204
    assert owner.paths("data", "?recursive=true") == [
        "data/x/", "data/x/deep/", "data/x/deep/g",
    ]  # fmt: skip
    assert owner.delete("/files/data/").status == 204
    assert owner.paths("", "?recursive=true") == ["artifact/", "config/", "config/c", *TOP[2:]]
    assert owner.delete("/files/").status == 204
    assert owner.paths("", "?recursive=true") == TOP


def test_a_job_takes_its_inputs_from_there(owner: Api) -> None:
    def submit(*ids: str) -> Reply:
        files = {"data_ids": [*ids]}
        return owner.post("/jobs", json=job_body(attributes={"files_down": files}))

    assert submit("x/", "x/f.csv").status == 201
    assert submit("none").status == 400
