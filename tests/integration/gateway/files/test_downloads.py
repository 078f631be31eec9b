"""Downloads: always as an attachment, with ranges and conditions."""

import errno
import http.client
import re
from email.utils import formatdate
from urllib.parse import quote, unquote

import pytest

from common.storage.headers import attachment
from common.storage.local.file import LocalFile
from tests.support.gateway import Api, on_both_storages

CONTENT = b"hello world"
TARGET = "/files/data/d/f.csv/download"


@pytest.fixture
def owner(api: Api) -> Api:
    """A user with a file."""
    assert api.upload("data/d", "f.csv", CONTENT).status == 201
    return api


@on_both_storages
def test_get_and_head_describe_the_file_alike(owner: Api) -> None:
    got, head = owner.get(TARGET), owner.send("HEAD", TARGET)
    assert (got.status, got.body) == (200, CONTENT)
    assert (head.status, head.body) == (200, b"")
    [entry] = owner.get("/files/data/d?details=true").json()
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
@pytest.mark.parametrize("path", ["data/none", "none/x", "data/d/f.csv/x", "data/d/f", "url"])
def test_what_does_not_exist_is_not_found(owner: Api, path: str) -> None:
    for ending in ("download", "url"):
        reply = owner.get(f"/files/{path}/{ending}")
        assert (reply.status, reply.json()) == (404, {"detail": "Not Found"})
    assert owner.send("HEAD", f"/files/{path}/download").status == 404


@on_both_storages
def test_an_empty_file(api: Api) -> None:
    api.upload("data/x", "empty", b"")
    reply = api.get("/files/data/x/empty/download")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")
    assert api.get("/files/data/x/empty/download", headers={"Range": "bytes=0-"}).status == 416


@on_both_storages
def test_a_large_file_comes_whole_and_in_part(api: Api) -> None:
    content = bytes(range(256)) * 20_000
    api.upload("data/x", "large", content)
    assert api.get("/files/data/x/large/download").body == content
    part = api.get("/files/data/x/large/download", headers={"Range": "bytes=1000000-3999999"})
    assert part.body == content[1_000_000:4_000_000]


def test_a_failure_in_the_middle_breaks_the_connection(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = LocalFile._read_chunk

    def fail_later(file: LocalFile, length: int, offset: int) -> bytes:
        if offset:
            raise OSError(errno.EIO, "the disk is broken")
        return read(file, length, offset)

    api.plant("data/large", b"x" * 3_000_000)
    monkeypatch.setattr(LocalFile, "_read_chunk", fail_later)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        api.get("/files/data/large/download")


def test_links_out_of_the_tree_are_not_followed(api: Api) -> None:
    (api.tree / "data/link").symlink_to("/etc/passwd")
    (api.tree / "data/folder").symlink_to("/etc")
    for path in ("link", "folder/passwd", "folder"):
        assert api.get(f"/files/data/{path}/download").status == 404


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        'a"b.txt',
        "sp ace",
        "ü漢😀",
        "semi;x",
        "perc%41",
        "back\\slash",
        "quote'",
        "a,b",
        "<b>",
        "%22",
    ],
)
def test_the_header_holds_any_name(api: Api, name: str) -> None:
    api.plant(f"data/{name}", CONTENT)
    reply = api.get(f"/files/data/{quote(name)}/download")
    assert reply.body == CONTENT
    header = reply.headers["content-disposition"]
    plain = re.match(r'attachment; filename="([ -!#-$&-:<-\[\]-~]*)"', header)
    assert plain, header
    encoded = re.search(r"; filename\*=UTF-8''([A-Za-z0-9%._~-]*)$", header)
    assert (unquote(encoded[1]) if encoded else plain[1]) == name


@pytest.mark.parametrize("name", ["a\r\nX-Evil: 1", "a\0", "\udcff", 'x"; y="z', "a\nb"])
def test_no_name_breaks_out_of_the_header(name: str) -> None:
    header = attachment(name)
    assert re.fullmatch(r"attachment; filename=\"[ !#-~]*\"; filename\*=UTF-8''[\w%.~-]*", header)


@pytest.mark.parametrize("name", ["x.html", "x.svg", "x.csv", "x.tar.gz", "x", "x.js"])
def test_nothing_is_shown_in_the_browser(api: Api, name: str) -> None:
    api.plant(f"data/{name}")
    headers = api.get(f"/files/data/{name}/download").headers
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-type"]
    assert "content-encoding" not in headers


# -- ranges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "body", "shown"),
    [
        ("bytes=0-4", b"hello", "0-4"), ("bytes=6-", b"world", "6-10"),
        ("bytes=-5", b"world", "6-10"), ("bytes=-100", CONTENT, "0-10"),
        ("bytes=0-0", b"h", "0-0"), ("bytes=4-100", b"o world", "4-10"),
        ("BYTES=0-4", b"hello", "0-4"), ("bytes=0-1,100-200", b"he", "0-1"),
        ("bytes=0-" + "9" * 60, CONTENT, "0-10"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_one_range(owner: Api, method: str, value: str, body: bytes, shown: str) -> None:
    reply = owner.send(method, TARGET, headers={"Range": value})
    assert reply.status == 206
    assert reply.body == (body if method == "GET" else b"")
    assert reply.headers["content-length"] == str(len(body))
    assert reply.headers["content-range"] == f"bytes {shown}/11"


@on_both_storages
def test_several_ranges_come_as_parts(owner: Api) -> None:
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


@pytest.mark.parametrize("value", ["bytes=11-", "bytes=99-100", "bytes=-0", "bytes=11-,12-"])
def test_no_part_lies_in_the_range(owner: Api, value: str) -> None:
    reply = owner.get(TARGET, headers={"Range": value})
    assert reply.status == 416
    assert reply.headers["content-range"] == "bytes */11"
    assert reply.detail


@pytest.mark.parametrize("value", ["items=0-1", "bytes=5-2", "bytes=a-b", "bytes", "bytes=", "x"])
def test_an_invalid_range_is_ignored(owner: Api, value: str) -> None:
    reply = owner.get(TARGET, headers={"Range": value})
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
