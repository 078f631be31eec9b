"""Uploads: complete or not at all, under the file's own name."""

import asyncio
import socket
from collections.abc import Callable
from urllib.parse import quote

import pytest

from devtools.waiting import eventually
from tests.integration.gateway.files.conftest import staged
from tests.support.gateway import Api, Gateway, multipart, on_both_storages

MARK = "boundary"
CONTENT_TYPE = {"Content-Type": f"multipart/form-data; boundary={MARK}"}
END = f"--{MARK}--\r\n".encode()


def part(name: str, content: bytes, *, filename: str | None = None) -> bytes:
    shown = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return f"--{MARK}\r\nContent-Disposition: {shown}\r\n\r\n".encode() + content + b"\r\n"


FILE = part("file", b"content", filename="f.txt")


def head(api: Api, *headers: str) -> bytes:
    """The head of an upload, for bodies that are sent apart from it or never."""
    lines = [
        "POST /files/data/up/upload HTTP/1.1", "Host: x", f"Authorization: Bearer {api.token}",
        f"Content-Type: {CONTENT_TYPE['Content-Type']}", *headers,
    ]  # fmt: skip
    return "\r\n".join([*lines, "\r\n"]).encode()


def send(api: Api, body: bytes, headers: dict[str, str] = CONTENT_TYPE):
    return api.post("/files/data/up/upload", body=body, headers=headers)


def assert_nothing_is_left(api: Api) -> None:
    assert api.paths("data/", "?recursive=true") == []
    assert staged(api.gateway) == []


@pytest.mark.parametrize("kind", ["config", "data", "artifact"])
@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 Bytes"), (1, "1 Byte"), (1000, "1.0 kB"), (1_500_000, "1.5 MB")]
)
def test_a_file_is_stored_under_its_own_name(api: Api, kind: str, size: int, shown: str) -> None:
    reply = api.upload(f"{kind}/x", "f.csv", b"n" * size)
    assert reply.status == 201
    assert reply.json() == {"path": f"{kind}/x/f.csv", "type": "file", "size": shown}
    assert (api.tree / kind / "x/f.csv").read_bytes() == b"n" * size


@pytest.mark.parametrize("directory", ["data/", "data//", "data/x/", "data/x//y", "data%2Fx"])
def test_directories_in_every_spelling_and_files_are_replaced(api: Api, directory: str) -> None:
    for content in (b"a long first version", b"second"):
        assert api.upload(directory, "f.txt", content).status == 201
    path = f"{directory.replace('%2F', '/')}/f.txt"
    assert (api.tree / path).read_bytes() == b"second"


@pytest.mark.parametrize(
    "name",
    [
        "with space.txt", "ünï-漢字.txt", "semi;colon.txt", "plus+.txt", ".hidden", "a" * 255, "😀",
        "url", "upload", "download", "a&b=c", "what?", "percent%20.txt", "#x", "100%", "%00", "...",
        "<img src=x>.txt", "a%2", "%2541", "%0d", "'quoted'", "*", "-rf", "~",
    ],
)  # fmt: skip
def test_any_name_that_a_file_can_have(api: Api, name: str) -> None:
    assert api.upload("data/x", name, b"odd").json()["path"] == f"data/x/{name}"
    assert (api.tree / "data/x" / name).read_bytes() == b"odd"
    assert api.get(f"/files/data/x/{quote(name, safe='')}/download").body == b"odd"


@pytest.mark.parametrize(
    ("disposition", "stored"),
    [
        (b'form-data; name="file"; filename="tree/deep/x.txt"', "x.txt"),
        (b'form-data; name="file"; filename="/x.txt"', "x.txt"),
        (b'form-data; name="file"; filename="../../x.txt"', "x.txt"),
        (b"form-data; name=\"file\"; filename*=UTF-8''%C3%BC%20x.txt", "ü x.txt"),
        (b'form-data; name="file"; filename="u.txt"; filename*=UTF-8\'\'%C3%BC.txt', "ü.txt"),
        (b"form-data; name=\"file\"; filename*=UTF-8''tree%2Fx.txt", "x.txt"),
        (b'form-data; name="file"; filename="a\\"b.txt"', 'a"b.txt'),
        (b'form-data; name="file"; filename="C:\\dir\\w.txt"', "w.txt"),
        (b'form-data; name="file"; filename="..\\..\\w.txt"', "w.txt"),
        (b'form-data; name="file"; filename="a%22b%2522.txt"', 'a"b%2522.txt'),
        (b"form-data; name=\"file\"; filename*=UTF-8''a%2522.txt", "a%22.txt"),
        (b'form-data; filename="x.txt"; name="file"', "x.txt"),
        (b"form-data; name=file; filename=bare.txt", "bare.txt"),
    ],
)
def test_of_a_name_only_the_last_component_counts(
    api: Api, disposition: bytes, stored: str
) -> None:
    body, kind = multipart("", b"x", disposition=disposition)
    reply = send(api, body, {"Content-Type": kind})
    assert reply.json()["path"] == f"data/up/{stored}"
    assert [path.name for path in (api.tree / "data/up").iterdir()] == [stored]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"..", "value_error"), (b".", "value_error"), (b"a/..", "value_error"),
        (b"a%0Ab", "value_error"), (b"a%0D", "value_error"), (b"..\\..", "value_error"),
        (b"%2e%2e", "value_error"), (b"n" * 256, "value_error"), (b"\xff\xfe", "value_error"),
        (b"", "missing"), (b"/", "missing"), (b"dir/", "missing"), (b"a\0b", "multipart_invalid"),
        (b"a\x7fb", "multipart_invalid"), (b"n" * 20_000, "multipart_invalid"),
    ],
    ids=lambda value: str(value)[:16],
)  # fmt: skip
def test_names_that_no_file_can_have(api: Api, name: bytes, kind: str) -> None:
    assert api.upload("data/x", name).faults() == {(("body", "file"), kind)}
    assert_nothing_is_left(api)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (None, {}),
        (b"raw", {}),
        (b"{}", {"Content-Type": "application/json"}),
        (b"file=x", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b"", CONTENT_TYPE),
        (END, CONTENT_TYPE),
        (part("file", b"text") + END, CONTENT_TYPE),
        (part("other", b"x", filename="f") + END, CONTENT_TYPE),
    ],
)
def test_an_upload_without_a_file_is_invalid(api: Api, body: bytes, headers: dict) -> None:
    reply = send(api, body, headers)
    assert reply.detail == [{"loc": ["body", "file"], "msg": "Field required", "type": "missing"}]


@pytest.mark.parametrize("body", [FILE + END, None, b"raw"])
def test_a_bad_type_is_a_fault_with_any_body(api: Api, body: bytes) -> None:
    reply = api.post("/files/output/x/upload", body=body, headers=CONTENT_TYPE)
    assert (("path", "f_type"), "enum") in reply.faults()


@pytest.mark.parametrize("kind", ["multipart/related", "multipart/mixed; boundary=inner"])
def test_a_file_may_be_multipart_itself(api: Api, kind: str) -> None:
    body = FILE.replace(b"\r\n\r\n", f"\r\nContent-Type: {kind}\r\n\r\n--inner\r\n".encode(), 1)
    assert send(api, body + END).status == 201
    assert (api.tree / "data/up/f.txt").read_bytes() == b"--inner\r\ncontent"


def test_other_fields_may_come_before_and_after(api: Api) -> None:
    body = part("_charset_", b"x" * 40) + FILE + part("more", b"2" * 100_000) + END
    assert send(api, body).status == 201
    assert (api.tree / "data/up/f.txt").read_bytes() == b"content"


@pytest.mark.parametrize("between", [b"", part("more", b"x")])
@pytest.mark.parametrize("name", ["f.txt", "other.txt", ""])
def test_a_second_file_is_a_fault_and_nothing_is_stored(
    api: Api, between: bytes, name: str
) -> None:
    second = part("file", b"2", filename="?").replace(b"?", name.encode())
    reply = send(api, FILE + between + second + END)
    assert reply.detail == [
        {"loc": ["body", "file"], "msg": "Only one file may be sent", "type": "too_many"}
    ]
    assert_nothing_is_left(api)


@on_both_storages
def test_a_second_file_leaves_the_first_as_it_was(api: Api) -> None:
    assert send(api, FILE + END).status == 201
    changed = FILE.replace(b"content", b"changed")
    assert send(api, changed + FILE + END).faults() == {(("body", "file"), "too_many")}
    assert api.get("/files/data/up/f.txt/download").body == b"content"


@pytest.mark.parametrize(
    "body",
    [
        b"x" * (1 << 20) + b"\r\n" + FILE + END,
        FILE + part("more", b"x" * (1 << 20)) + END,
        part("more", b"") * 1_000 + FILE + END,
        FILE + part("more", b"") * 1_000 + END,
    ],
    ids=["preamble", "field", "parts before", "parts after"],
)
def test_what_stands_around_the_file_is_bounded(api: Api, body: bytes) -> None:
    assert send(api, body).faults() == {(("body", "file"), "multipart_invalid")}
    assert_nothing_is_left(api)


@pytest.mark.parametrize("extra", [b"", b"junk", b"\r\n\r\n--other"])
def test_what_stands_around_the_form_is_ignored(api: Api, extra: bytes) -> None:
    assert send(api, extra + b"\r\n" + FILE + END + extra).status == 201


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (FILE[:-5], CONTENT_TYPE),
        (FILE + part("more", b"x")[:-4], CONTENT_TYPE),
        (b"nothing of the kind", CONTENT_TYPE),
        (FILE + END, {"Content-Type": "multipart/form-data"}),
    ],
    ids=range(4),
)
def test_a_broken_form_leaves_nothing(api: Api, body: bytes, kind: dict[str, str]) -> None:
    assert {loc for loc, _ in send(api, body, kind).faults()} == {("body", "file")}
    assert_nothing_is_left(api)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_goes_away_leaves_nothing(api: Api, gateway: Gateway, chunked: bool) -> None:
    sent = part("file", b"z" * 3_000_000, filename="big.bin")
    length = "Content-Length: 9000000"
    if chunked:
        length = "Transfer-Encoding: chunked"
        sent = f"{len(sent):x}\r\n".encode() + sent + b"\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(head(api, length) + sent)
        asyncio.run(eventually(lambda: staged(gateway)))  # the upload is under way
    asyncio.run(eventually(lambda: not staged(gateway)))
    assert_nothing_is_left(api)


def test_a_compressed_form_leaves_nothing(api: Api) -> None:
    reply = send(api, FILE + END, {**CONTENT_TYPE, "Content-Encoding": "gzip"})
    assert reply.status == 415
    assert_nothing_is_left(api)


@on_both_storages
def test_a_file_in_place_of_a_directory_or_the_reverse_is_a_conflict(api: Api) -> None:
    api.upload("data/", "plain", b"kept")
    api.upload("data/folder", "x", b"kept")
    before = api.get("/files/data?recursive=true&details=true").json()
    for directory, name in [("data/plain", "x"), ("data/plain/deep", "x"), ("data/", "folder")]:
        reply = api.upload(directory, name)
        assert reply.status == 409
        assert reply.detail
    assert api.get("/files/data?recursive=true&details=true").json() == before


@pytest.mark.parametrize(
    ("limits", "status", "allowed"),
    [
        ({"MAX_UPLOAD_BYTES": "1000"}, 413, 1000),
        ({"MIN_FREE_BYTES": "1000"}, 507, 1000),
        ({"MIN_FREE_BYTES": str(1 << 60)}, 507, None),
    ],
)
def test_uploads_beyond_the_limits_are_refused_before_their_body_is_sent(
    api_with: Callable[..., Api], limits: dict[str, str], status: int, allowed: int | None
) -> None:
    api = api_with(**limits)
    if allowed:
        assert api.upload("data/up", "small", b"x" * allowed).status == 201
    reply = api.gateway.raw(head(api, f"Content-Length: {1 << 60}"))
    assert reply.status == status
    assert reply.detail
    if "MAX_UPLOAD_BYTES" in limits:
        reply = api.upload("data/up", "large", b"x" * 1001)
        assert (reply.status, reply.detail) == (413, "A file may have at most 1000 bytes")
    assert api.paths("data", "?recursive=true&show_dirs=false") == (
        ["data/up/small"] if allowed else []
    )
    assert staged(api.gateway) == []


def test_a_client_that_stops_in_the_middle_is_answered_408(api_with: Callable[..., Api]) -> None:
    api = api_with(CLIENT_TIMEOUT="1.5")
    reply = api.gateway.raw(head(api, "Content-Length: 3000") + FILE)
    assert (reply.status, reply.detail) == (408, "The body did not come in time")
    assert_nothing_is_left(api)
