"""Downloads: always as an attachment, with ranges and conditions."""

import errno
import http.client
import re
from collections.abc import Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import quote, unquote

import pytest

from common.storage.headers import attachment
from common.storage.local.file import LocalFile
from tests.support.gateway import Api, on_both_storages

CONTENT = b"hello world"
TARGET = "/files/data/x/f.csv/download"


@on_both_storages
def test_get_and_head_describe_the_file_alike(owner: Api) -> None:
    got, head = owner.get(TARGET), owner.send("HEAD", TARGET)
    assert (got.status, got.body) == (200, CONTENT)
    assert (head.status, head.body) == (200, b"")
    [entry] = owner.get("/files/data/x?details=true").json()
    expected = {
        "content-type": "text/csv",
        "content-length": "11",
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "content-disposition": 'attachment; filename="f.csv"',
        "x-content-type-options": "nosniff",
        "etag": f'"{entry["etag"]}"',
    }
    for reply in (got, head):
        assert reply.headers.items() >= expected.items()
        assert reply.headers["last-modified"].endswith(" GMT")
    volatile = {"date", "x-request-id"}
    assert got.headers.keys() - volatile == head.headers.keys() - volatile


@on_both_storages
@pytest.mark.parametrize("path", ["data/none", "none/x", "data/x/f.csv/x", "data/x/f", "url"])
def test_a_path_with_nothing_is_not_found(owner: Api, path: str) -> None:
    for ending in ("", "/", "/download", "/url"):
        reply = owner.get(f"/files/{path}{ending}")
        assert (reply.status, reply.json()) == (404, {"detail": "Not Found"})
    assert owner.send("HEAD", f"/files/{path}/download").status == 404
    assert owner.get("/files/data/x/f.csv").status == 404  # no directory


@on_both_storages
def test_an_empty_file(api: Api) -> None:
    api.upload("data/x", "empty", b"")
    reply = api.get("/files/data/x/empty/download")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")
    assert api.get("/files/data/x/empty/download", headers={"Range": "bytes=0-"}).status == 416


@pytest.mark.parametrize("path", ["data/x/large", "data/x"])
def test_a_failure_in_the_middle_breaks_the_connection(
    owner: Api, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def failing_later(read: Callable[..., Any]) -> Callable[..., Any]:
        def fail_later(file: LocalFile, length: int, offset: int, *more: Any) -> Any:
            if offset:
                raise OSError(errno.EIO, "the disk is broken")
            return read(file, length, offset, *more)

        return fail_later

    owner.plant("data/x/large", b"x" * 3_000_000)
    for name in ("_read_chunk", "_read_blocks"):  # of files, and of zips
        monkeypatch.setattr(LocalFile, name, failing_later(getattr(LocalFile, name)))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        owner.get(f"/files/{path}/download")


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ['a"b.txt', "sp ace", "ü漢😀", "semi;x", "%41", "back\\slash", "x.html", "x.tar.gz"]
)
def test_any_file_is_an_attachment_under_its_name(api: Api, name: str) -> None:
    api.plant(f"data/{name}", CONTENT)
    reply = api.get(f"/files/data/{quote(name)}/download")
    assert reply.body == CONTENT
    header = reply.headers["content-disposition"]
    plain = re.match(r'attachment; filename="([ -!#-$&-:<-\[\]-~]*)"', header)
    assert plain, header
    encoded = re.search(r"; filename\*=UTF-8''([A-Za-z0-9%._~-]*)$", header)
    assert (unquote(encoded[1]) if encoded else plain[1]) == name
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-type"]
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize("name", ["a\r\nX-Evil: 1", "a\0", "\udcff", 'x"; y="z', "a\nb"])
def test_no_name_breaks_out_of_the_header(name: str) -> None:
    header = attachment(name)
    assert re.fullmatch(r"attachment; filename=\"[ !#-~]*\"; filename\*=UTF-8''[\w%.~-]*", header)


# -- ranges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "body", "shown"),
    [("BYTES=0-4", b"hello", "0-4"), ("bytes=-5,100-200", b"world", "6-10")],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_one_range(owner: Api, method: str, value: str, body: bytes, shown: str) -> None:
    reply = owner.send(method, TARGET, headers={"Range": value})
    assert reply.status == 206
    assert reply.body == (body if method == "GET" else b"")
    assert reply.headers["content-length"] == str(len(body))
    assert reply.headers["content-range"] == f"bytes {shown}/11"


@on_both_storages
def test_several_ranges_are_sent_as_parts(owner: Api) -> None:
    reply = owner.get(TARGET, headers={"Range": "bytes=6-7, 0-1"})
    assert reply.status == 206
    assert reply.headers["content-length"] == str(len(reply.body))
    kind, _, boundary = reply.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    parts = reply.body.split(f"--{boundary}".encode())
    assert parts[-1] == b"--\r\n"
    heads, bodies = zip(
        *(part.strip(b"\r\n").split(b"\r\n\r\n") for part in parts[1:-1]), strict=True
    )
    assert list(bodies) == [b"wo", b"he"]
    assert b"Content-Range: bytes 6-7/11" in heads[0]
    assert b"Content-Range: bytes 0-1/11" in heads[1]


def test_a_range_beyond_the_file_is_refused_and_an_invalid_one_ignored(owner: Api) -> None:
    reply = owner.get(TARGET, headers={"Range": "bytes=11-,12-"})
    assert reply.status == 416
    assert reply.headers["content-range"] == "bytes */11"
    assert reply.detail
    reply = owner.get(TARGET, headers={"Range": "items=0-1"})
    assert (reply.status, reply.body) == (200, CONTENT)


# -- conditions ----------------------------------------------------------------------------------


@on_both_storages
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If_None_Match": "{ETAG}"}, 304),
        ({"If_None_Match": "W/{ETAG}"}, 304),
        ({"If_None_Match": '"x", {ETAG}'}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"x"'}, 200),
        ({"If_None_Match": '"x"', "If_Modified_Since": "{DATE}"}, 200),
        ({"If_Modified_Since": "{DATE}"}, 304),
        ({"If_Modified_Since": "{OLD}"}, 200),
        ({"If_Modified_Since": "nonsense"}, 200),
        ({"If_Match": "{ETAG}"}, 200),
        ({"If_Match": "*"}, 200),
        ({"If_Match": '"x"'}, 412),
        ({"If_Unmodified_Since": "{DATE}"}, 200),
        ({"If_Unmodified_Since": "{OLD}"}, 412),
        ({"Range": "bytes=0-1", "If_Range": "{ETAG}"}, 206),
        ({"Range": "bytes=0-1", "If_Range": "{DATE}"}, 206),
        ({"Range": "bytes=0-1", "If_Range": '"x"'}, 200),
        ({"Range": "bytes=0-1", "If_Range": "W/{ETAG}"}, 200),
        ({"Range": "bytes=0-1", "If_Range": "{OLD}"}, 200),
        ({"Range": "bytes=99-", "If_Range": '"x"'}, 200),
        ({"Range": "bytes=99-", "If_None_Match": "{ETAG}"}, 304),
    ],
    ids=str,
)
def test_conditional_requests(owner: Api, headers: dict[str, str], status: int) -> None:
    known = owner.get(TARGET).headers
    values = {"ETAG": known["etag"], "DATE": known["last-modified"], "OLD": formatdate(0)}
    named = {name.replace("_", "-"): value.format(**values) for name, value in headers.items()}
    reply = owner.get(TARGET, headers=named)
    assert reply.status == status
    if status == 304:
        assert reply.body == b""
        assert reply.headers["etag"] == known["etag"]
    if status == 412:
        assert reply.detail
