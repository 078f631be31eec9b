"""Renaming: what is refused, in which order, and that a refusal leaves nothing behind."""

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
    for name in ("hollow", "slash"):
        api.post(f"/files/data/{name}/")
    directory = {"type": "directory", "size": ""}
    for source, target, expected in [
        ("data/x/f.csv", "artifact//y/g.csv", {"type": "file", "size": "1 Byte"}),
        ("data/hollow", "data/new/place", directory),
        ("data/slash/", "data/new/slash/", directory),
    ]:
        reply = rename(api, source, target)
        path = target.replace("//", "/").rstrip("/") + ("/" if expected is directory else "")
        assert (reply.status, reply.json()) == (200, {"path": path, **expected})
    assert api.get("/files/artifact/y/g.csv/download").body == b"F"
    assert api.paths("data", "?recursive=true") == [
        "data/new/", "data/new/place/", "data/new/slash/", "data/x/",
    ]  # fmt: skip


@on_both_storages
def test_an_existing_file_is_replaced_unless_the_client_forbids_it(api: Api) -> None:
    for name in "ab":
        api.upload("data/r", f"{name}.txt", name.encode())
    reply = rename(api, "data/r/a.txt", "data/r/b.txt", If_None_Match="*")
    assert reply.status == 412
    assert reply.detail
    assert api.get("/files/data/r/b.txt/download").body == b"b"
    assert rename(api, "data/r/a.txt", "data/r/c.txt", If_None_Match="*").status == 200
    assert rename(api, "data/r/c.txt", "data/r/b.txt").status == 200
    assert api.paths("data/r/") == ["data/r/b.txt"]
    assert api.get("/files/data/r/b.txt/download").body == b"a"


@pytest.mark.parametrize("top", ["config", "artifact", "output", "log"])
def test_a_file_moves_between_the_predefined_directories(user: Api, top: str) -> None:
    assert rename(user, "data/r/a.txt", f"{top}/a.txt").status == 200
    assert (user.tree / top / "a.txt").read_bytes() == b"A"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("data/r/a.txt", "data/r/a.txt"), ("data/r/a.txt", "data//r//a.txt"),
        ("data/empty", "data/empty"), ("data/empty/", "data/empty/"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("condition", ["", "*"])
def test_onto_itself_nothing_changes(user: Api, source: str, target: str, condition: str) -> None:
    before = everything(user)
    assert rename(user, source, target, If_None_Match=condition).status == 200
    assert everything(user) == before


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        # no source comes first, whatever the target
        ("data/none", "data/new", NOT_FOUND), ("data/none", "", NOT_FOUND),
        ("data/none", "..", NOT_FOUND), ("data/none", "/x", NOT_FOUND),
        ("data/none", "data/full", NOT_FOUND), ("data/r/a.txt/x", "data/new", NOT_FOUND),
        # then what cannot be renamed
        ("data/full", "..", NOT_EMPTY), ("data/full/", "elsewhere", NOT_EMPTY),
        ("data/full", "data/full/inner", NOT_EMPTY), ("data", "", NOT_EMPTY),
        ("output", "..", PREDEFINED), ("log/", "data/x", PREDEFINED), ("config", "x", PREDEFINED),
        ("", "data/x", NOT_EMPTY), ("/", "..", NOT_EMPTY),
        # then a target that is none
        ("data/r/a.txt", "", INVALID), ("data/r/a.txt", "/", INVALID),
        ("data/r/a.txt", "/data/x", INVALID), ("data/r/a.txt", "..", INVALID),
        ("data/r/a.txt", "data/../x", INVALID), ("data/r/a.txt", "data/./x", INVALID),
        ("data/r/a.txt", "data/%2e%2e/x", INVALID), ("data/r/a.txt", "x", INVALID),
        ("data/r/a.txt", "other/x", INVALID), ("data/r/a.txt", "data/a\0", INVALID),
        ("data/r/a.txt", "data/" + "n" * 256, INVALID), ("data/empty", "elsewhere/x", INVALID),
        ("data/r/a.txt", "null", INVALID),
        # then what stands in the way
        ("data/r/a.txt", "data/r/b.txt/x", CONFLICT), ("data/r/a.txt", "data/r/a.txt/x", CONFLICT),
        ("data/r/a.txt", "data/full", CONFLICT), ("data/r/a.txt", "data/empty/", CONFLICT),
        ("data/r/a.txt", "data", CONFLICT), ("data/r/a.txt", "output/", CONFLICT),
        ("data/empty", "data/empty2", CONFLICT), ("data/empty", "data/r/b.txt", CONFLICT),
        ("data/empty", "data/r/b.txt/x", CONFLICT),
        ("data/r/a.txt", "data/full/x.txt/y/z", CONFLICT),
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


def test_more_keys_do_no_harm(user: Api) -> None:
    body = {"path": "data/new", "type": "file", "size": ""}
    assert user.put("/files/data/r/a.txt", json=body).status == 200
