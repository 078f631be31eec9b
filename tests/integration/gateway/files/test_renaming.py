"""Renaming: refusals, their order, and that they leave nothing behind."""

from collections.abc import Callable

import pytest

from tests.support.gateway import Api, on_both_storages

NOT_FOUND = (404, "Not Found")
NOT_EMPTY = (405, "Cannot rename a non-empty directory")
PREDEFINED = (405, "Cannot rename a predefined directory")
INVALID = (422, [("body", "path")])
CONFLICT = 409


@pytest.fixture
def user(api: Api) -> Api:
    api.plant("data/r/a.txt", b"A")
    api.plant("data/r/b.txt", b"B")
    api.plant("data/full/x.txt", b"X")
    (api.tree / "data/empty").mkdir()
    (api.tree / "data/empty2").mkdir()
    return api


def everything(user: Api) -> dict[str, bytes | None]:
    return {
        path: None if path.endswith("/") else (user.tree / path).read_bytes()
        for path in user.paths("", "?recursive=true")
    }


def rename(user: Api, source: str, target: str, **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return user.put(f"/files/{source}", json={"path": target}, headers=named)


def verdict(reply):
    if reply.status == 422:
        return 422, [tuple(fault["loc"]) for fault in reply.detail]
    return reply.status if reply.status == 409 else (reply.status, reply.detail)


@on_both_storages
def test_files_and_empty_directories_move_and_parents_are_made(api: Api) -> None:
    api.upload("data/x", "f.csv", b"F")
    api.post("/files/data/hollow/")
    file = {"path": "artifact/y/g.csv", "type": "file", "size": "1 Byte"}
    directory = {"path": "data/new/place/", "type": "directory", "size": ""}
    for source, target, moved in [
        ("data/x/f.csv", "artifact//y/g.csv", file),
        ("data/hollow", "data/new/place", directory),
        ("data/new/place/", "data/new//place/", directory),
    ]:
        reply = rename(api, source, target)
        assert (reply.status, reply.json()) == (200, moved)
    assert api.get("/files/artifact/y/g.csv/download").body == b"F"
    assert api.paths("data", "?recursive=true") == ["data/new/", "data/new/place/", "data/x/"]


@on_both_storages
def test_an_existing_file_is_replaced_unless_the_client_forbids_it(api: Api) -> None:
    for name in "ab":
        api.upload("data/r", f"{name}.txt", name.encode())
    assert rename(api, "data/r/a.txt", "data/r//a.txt", If_None_Match="*").status == 200
    reply = rename(api, "data/r/a.txt", "data/r/b.txt", If_None_Match="*")
    assert reply.status == 412
    assert reply.detail
    assert api.get("/files/data/r/b.txt/download").body == b"b"
    assert rename(api, "data/r/a.txt", "data/r/c.txt", If_None_Match="*").status == 200
    assert rename(api, "data/r/c.txt", "data/r/b.txt").status == 200
    assert api.paths("data/r/") == ["data/r/b.txt"]
    assert api.get("/files/data/r/b.txt/download").body == b"a"


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        # a missing source comes first, for any target
        ("data/none", "data/new", NOT_FOUND), ("data/none", "", NOT_FOUND),
        ("data/none", "..", NOT_FOUND), ("data/none", "/x", NOT_FOUND),
        # then sources that cannot be renamed
        ("data/full", "..", NOT_EMPTY), ("data", "", NOT_EMPTY), ("/", "..", NOT_EMPTY),
        ("data/full", "data/full/inner", NOT_EMPTY), ("output", "..", PREDEFINED),
        ("log/", "data/x", PREDEFINED),
        # then invalid targets
        ("data/r/a.txt", "", INVALID), ("data/r/a.txt", "/", INVALID),
        ("data/r/a.txt", "/data/x", INVALID), ("data/r/a.txt", "data/../x", INVALID),
        ("data/r/a.txt", "data/%2e%2e/x", INVALID), ("data/r/a.txt", "other/x", INVALID),
        ("data/r/a.txt", "data/a\0", INVALID), ("data/empty", "data/empty/x", INVALID),
        ("data/r/a.txt", "data/" + "n" * 256, INVALID),
        # then conflicts
        ("data/r/a.txt", "data/r/b.txt/x", CONFLICT), ("data/r/a.txt", "data/r/a.txt/x", CONFLICT),
        ("data/r/a.txt", "data/empty/", CONFLICT), ("data/empty", "data/empty2", CONFLICT),
    ],
    ids=ascii,
)  # fmt: skip
def test_refusals_come_in_order_and_leave_nothing_behind(
    user: Api, source: str, target: str, expected: object
) -> None:
    before = everything(user)
    assert verdict(rename(user, source, target)) == expected
    assert everything(user) == before


@pytest.mark.parametrize(
    ("body", "kind"),
    [({}, "missing"), ({"path": None}, "string_type"), ({"path": 3}, "string_type")],
)
def test_a_new_path_is_needed(user: Api, body: dict, kind: str) -> None:
    assert user.put("/files/data/r/a.txt", json=body).faults() == {(("body", "path"), kind)}


HOW_TO_UPLOAD = "to upload a file, POST it as the form field 'file' to /files/{type}/{path}/upload"


def test_a_file_that_is_put_is_refused_in_words_that_say_how_to_upload(user: Api) -> None:
    reply = user.put("/files/data/r/new.csv", body=b"x,y\n1,2\n")  # as `curl -T new.csv` does
    assert reply.faults() == {(("body",), "json_invalid")}
    assert reply.detail[0]["msg"].endswith(HOW_TO_UPLOAD)


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 2000\r\n\r\n" + b"x" * 2_000,
        b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2_000 + b"\r\n0\r\n\r\n",
    ],
    ids=["announced", "chunked"],
)
def test_so_is_one_that_is_too_long(api_with: Callable[..., Api], body: bytes) -> None:
    user = api_with(MAX_BODY_BYTES="1024")
    head = f"PUT /files/data/f HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\n"
    reply = user.gateway.raw(head.encode() + body)
    assert reply.status == 413
    assert reply.detail.endswith(HOW_TO_UPLOAD)
