"""Renaming: what is refused, in which order, and that a refusal leaves nothing behind."""

import pytest

from tests.support.gateway import Api

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


@pytest.mark.parametrize("target", ["data/new.txt", "data/deep/er/new.txt", "data//new.txt"])
def test_a_file_moves_and_parents_are_made(user: Api, target: str) -> None:
    clean = target.replace("//", "/")
    reply = rename(user, "data/r/a.txt", target)
    assert reply.status == 200
    assert reply.json() == {"path": clean, "type": "file", "size": "1 Byte"}
    assert (user.tree / clean).read_bytes() == b"A"
    assert not (user.tree / "data/r/a.txt").exists()


@pytest.mark.parametrize("top", ["config", "artifact", "output", "log"])
def test_a_file_moves_between_the_predefined_directories(user: Api, top: str) -> None:
    assert rename(user, "data/r/a.txt", f"{top}/a.txt").status == 200
    assert (user.tree / top / "a.txt").read_bytes() == b"A"


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_empty_directory_moves(user: Api, slash: str) -> None:
    reply = rename(user, f"data/empty{slash}", f"data/new/place{slash}")
    assert reply.status == 200
    assert reply.json() == {"path": "data/new/place/", "type": "directory", "size": ""}
    assert not (user.tree / "data/empty").exists()


def test_an_existing_file_is_replaced(user: Api) -> None:
    assert rename(user, "data/r/a.txt", "data/r/b.txt").status == 200
    assert user.paths("data/r/") == ["data/r/b.txt"]
    assert (user.tree / "data/r/b.txt").read_bytes() == b"A"


def test_with_if_none_match_it_is_not(user: Api) -> None:
    before = everything(user)
    reply = rename(user, "data/r/a.txt", "data/r/b.txt", If_None_Match="*")
    assert reply.status == 412
    assert reply.detail
    assert everything(user) == before
    assert rename(user, "data/r/a.txt", "data/r/c.txt", If_None_Match="*").status == 200


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
