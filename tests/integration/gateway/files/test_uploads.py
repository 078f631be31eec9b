"""Uploads: whole or not at all, under the file's own name."""

import socket
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Gateway, Issuer, multipart, on_both_storages

MARK = "boundary"
CONTENT_TYPE = {"Content-Type": f"multipart/form-data; boundary={MARK}"}
END = f"--{MARK}--\r\n".encode()


def part(name: str, content: bytes, *, filename: str | None = None) -> bytes:
    shown = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return f"--{MARK}\r\nContent-Disposition: {shown}\r\n\r\n".encode() + content + b"\r\n"


FILE = part("file", b"content", filename="f.txt")


def send(api: Api, body: bytes, headers: dict[str, str] = CONTENT_TYPE):
    return api.post("/files/data/up/upload", body=body, headers=headers)


def staged(gateway: Gateway) -> list[Path]:
    return list((gateway.root / ".opencloud-staging").glob("*"))


def assert_nothing_is_left(api: Api) -> None:
    assert api.paths("data/", "?recursive=true") == []
    assert staged(api.gateway) == []


@pytest.mark.parametrize("kind", ["config", "data", "artifact"])
def test_a_file_is_stored_under_its_own_name(api: Api, kind: str) -> None:
    reply = api.upload(f"{kind}/x", "f.csv", b"n" * 19)
    assert reply.status == 201
    assert reply.json() == {"path": f"{kind}/x/f.csv", "type": "file", "size": "19 Bytes"}
    assert (api.tree / kind / "x/f.csv").read_bytes() == b"n" * 19


@pytest.mark.parametrize("directory", ["data/", "data//", "data/x/", "data/x//y", "data%2Fx"])
def test_directories_in_every_spelling(api: Api, directory: str) -> None:
    assert api.upload(directory, "f.txt").status == 201


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 Bytes"), (1, "1 Byte"), (1000, "1.0 kB"), (1_500_000, "1.5 MB")]
)
def test_sizes_are_for_people(api: Api, size: int, shown: str) -> None:
    assert api.upload("data/x", "f", b"x" * size).json()["size"] == shown


def test_an_existing_file_is_replaced(api: Api) -> None:
    api.upload("data/x", "f", b"a long first version")
    assert api.upload("data/x", "f", b"second").status == 201
    assert (api.tree / "data/x/f").read_bytes() == b"second"


def test_bytes_that_look_like_the_forms_own_survive(api: Api) -> None:
    content = bytes(range(256)) * 1000 + b"\r\n--boundary\r\n--\r\n\r\n"
    api.upload("data/x", "f", content)
    assert (api.tree / "data/x/f").read_bytes() == content


@pytest.mark.parametrize(
    "name",
    [
        "with space.txt", "ünï-漢字.txt", "semi;colon.txt", "plus+.txt", ".hidden", "a" * 255, "😀",
        "url", "upload", "download", "a&b=c", "what?", "percent%20.txt", "#x", "100%", "%00", "...",
        "<img src=x>.txt", "tree\\x.txt", "a%22b", "'quoted'", "*", "-rf", "~",
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
        (b'form-data; name="file"; filename="C:\\dir\\w.txt"', "C:\\dir\\w.txt"),
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
def test_an_upload_without_a_file_is_said_so(api: Api, body: bytes, headers: dict) -> None:
    reply = send(api, body, headers)
    assert reply.detail == [{"loc": ["body", "file"], "msg": "Field required", "type": "missing"}]


@pytest.mark.parametrize("body", [FILE + END, None, b"raw"])
def test_a_bad_type_is_named_whatever_the_body(api: Api, body: bytes) -> None:
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
    "body",
    [
        FILE,
        FILE[:-5],
        FILE + f"--{MARK}".encode(),
        FILE + part("more", b"x"),
        FILE + part("more", b"x")[:-4],
        FILE.replace(b"\r\n\r\n", b"\r\n"),
        b"nothing of the kind",
        FILE.replace(b"Content-Disposition:", b"Content-Disposition"),
        f"--{MARK}\r\n".encode() + b"X: 1\r\n" * 5000 + b"\r\nx\r\n" + END,
    ],
    ids=range(9),
)
def test_a_form_that_breaks_off_leaves_nothing(api: Api, body: bytes) -> None:
    assert {loc for loc, _ in send(api, body).faults()} == {("body", "file")}
    assert_nothing_is_left(api)


@pytest.mark.parametrize("boundary", ["", "; boundary=other", "; boundary=" + "b" * 100])
def test_a_wrong_boundary_leaves_nothing(api: Api, boundary: str) -> None:
    kind = f"multipart/form-data{boundary}"
    assert send(api, FILE + END, {"Content-Type": kind}).status == 422
    assert_nothing_is_left(api)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_goes_away_leaves_nothing(api: Api, gateway: Gateway, chunked: bool) -> None:
    sent = part("file", b"z" * 3_000_000, filename="big.bin")
    head = (
        f"POST /files/data/up/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
        f"Content-Type: multipart/form-data; boundary={MARK}\r\n"
    )
    if chunked:
        head += "Transfer-Encoding: chunked\r\n\r\n"
        sent = f"{len(sent):x}\r\n".encode() + sent + b"\r\n"
    else:
        head += "Content-Length: 9000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(head.encode() + sent)
        deadline = time.monotonic() + 10
        while not staged(gateway) and time.monotonic() < deadline:
            time.sleep(0.005)  # until the upload is under way
        assert staged(gateway)
    while staged(gateway) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert_nothing_is_left(api)


def test_a_compressed_form_leaves_nothing(api: Api) -> None:
    reply = send(api, FILE + END, {**CONTENT_TYPE, "Content-Encoding": "gzip"})
    assert reply.status == 415
    assert_nothing_is_left(api)


@on_both_storages
def test_a_form_that_breaks_off_leaves_nothing_on_any_storage(api: Api) -> None:
    assert send(api, FILE[:-5]).status == 422
    assert api.paths("data") == []


@on_both_storages
def test_a_file_where_a_folder_is_needed_or_the_reverse_is_a_conflict(api: Api) -> None:
    api.upload("data/", "plain", b"kept")
    api.upload("data/folder", "x", b"kept")
    before = api.get("/files/data?recursive=true&details=true").json()
    for directory, name in [("data/plain", "x"), ("data/plain/deep", "x"), ("data/", "folder")]:
        reply = api.upload(directory, name)
        assert reply.status == 409
        assert reply.detail
    assert api.get("/files/data?recursive=true&details=true").json() == before


@pytest.mark.parametrize(
    ("limits", "status"),
    [({"MAX_UPLOAD_BYTES": "1000"}, 413), ({"MIN_FREE_BYTES": "1000"}, 507)],
)
def test_what_is_bound_to_fail_is_refused_before_it_comes(
    start_gateway: StartGateway, issuer: Issuer, limits: dict[str, str], status: int
) -> None:
    gateway = start_gateway(**limits)
    api = Api(gateway, "somebody", issuer.token("somebody"))
    assert api.upload("data/x", "small").status == 201
    reply = gateway.raw(
        f"POST /files/data/x/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
        f"Content-Type: {CONTENT_TYPE['Content-Type']}\r\n"
        f"Content-Length: {1 << 60}\r\n\r\n".encode()
    )
    assert reply.status == status
    assert reply.detail
    assert api.paths("data/x") == ["data/x/small"]


def test_without_the_free_space_to_keep_every_upload_is_refused(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = start_gateway(MIN_FREE_BYTES=str(1 << 60))
    api = Api(gateway, "somebody", issuer.token("somebody"))
    assert api.upload("data/x", "small").status == 507
    assert_nothing_is_left(api)


def test_a_client_that_stands_still_in_the_middle_is_answered_408(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = start_gateway(CLIENT_TIMEOUT="0.3")
    api = Api(gateway, "somebody", issuer.token("somebody"))
    reply = gateway.raw(
        f"POST /files/data/x/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
        f"Content-Type: {CONTENT_TYPE['Content-Type']}\r\nContent-Length: 3000\r\n\r\n".encode()
        + FILE
    )
    assert (reply.status, reply.detail) == (408, "The body did not come in time")
    assert_nothing_is_left(api)


def test_a_limit_is_kept(start_gateway: StartGateway, issuer: Issuer) -> None:
    gateway = start_gateway(MAX_UPLOAD_BYTES="1000")
    api = Api(gateway, "somebody", issuer.token("somebody"))
    assert api.upload("data/x", "small", b"x" * 1000).status == 201
    reply = api.upload("data/x", "large", b"x" * 1001)
    assert reply.status == 413
    assert "1000" in reply.detail
    assert api.paths("data/x") == ["data/x/small"]
