"""`POST …/upload?unpack=true`: the members of an archive, all of them or none."""

import asyncio
import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from common.database.errors import DatabaseUnavailable
from common.digests.records import Noted
from devtools.waiting import eventually
from gateway.files.handlers import DIGESTS
from tests.integration.gateway.files.conftest import staged
from tests.integration.gateway.files.test_uploads import assert_nothing_is_left
from tests.support import archives
from tests.support.archives import MAKERS
from tests.support.gateway import Api, Reply, multipart, on_both_storages

CONTENT = {
    "exp/a.txt": b"alpha",
    "exp/empty": b"",
    "exp/deep/ünï.bin": os.urandom(3000),
    "exp/nothing": None,
    "large.bin": os.urandom(1_500_000),
}
FILES = {name: data for name, data in CONTENT.items() if data is not None}


def unpack(
    api: Api, archive: bytes, directory: str = "data/x", query: str = "unpack=true"
) -> Reply:
    body, kind = multipart("archive", archive)
    target = f"/files/{directory}/upload?{query}"
    return api.post(target, body=body, headers={"Content-Type": kind})


def contents(api: Api, directory: str = "data") -> dict[str, bytes]:
    paths = api.paths(f"{directory}/", "?recursive=true&show_dirs=false")
    return {path: api.get(f"/files/{quote(path)}/download").body for path in paths}


def fault(reply: Reply) -> str:
    assert reply.status == 422, reply
    (found,) = reply.detail
    assert found["loc"] == ["body", "file"]
    return found["msg"]


@on_both_storages
@pytest.mark.parametrize("kind", ["gnu", "zstd", "piped zip"])
@pytest.mark.parametrize("directory", ["data/x", "data/"])
def test_members_are_stored_in_their_order_with_their_directories(
    api: Api, kind: str, directory: str
) -> None:
    reply = unpack(api, MAKERS[kind](CONTENT), directory)
    base = directory.rstrip("/")
    assert reply.status == 201, reply
    assert [entry["path"] for entry in reply.json()] == [f"{base}/{name}" for name in FILES]
    assert reply.json()[0] == {"path": f"{base}/exp/a.txt", "type": "file", "size": "5 Bytes"}
    assert contents(api) == {f"{base}/{name}": data for name, data in FILES.items()}
    assert f"{base}/exp/nothing/" in api.paths("data/", "?recursive=true")
    assert staged(api.gateway) == []


@on_both_storages
def test_files_that_are_there_are_replaced(api: Api) -> None:
    api.upload("data/x/exp", "a.txt", b"older and longer")
    api.upload("data/x", "other", b"kept")
    assert unpack(api, archives.tar(CONTENT)).status == 201
    expected = {f"data/x/{name}": data for name, data in FILES.items()}
    assert contents(api) == expected | {"data/x/other": b"kept"}


@on_both_storages
@pytest.mark.parametrize("large", [b"small", b"x" * 200_000])
def test_what_is_refused_leaves_everything_as_it_was(api: Api, large: bytes) -> None:
    api.upload("data/x", "a", b"before")
    api.upload("data/x/dir", "b", b"before")
    before = api.get("/files/data/?recursive=true&details=true").json()
    good = [archives.tar_member("a", b"after"), archives.tar_member("new/deep/c", large)]
    link = archives.tar_member("evil", kind=b"2", link="/etc/passwd")
    assert "'evil' given" in fault(unpack(api, archives.tar_of([*good, link])))
    assert "ends early" in fault(unpack(api, archives.tar_of(good)[: 3 * 512 + len(large) + 100]))
    for name, detail in [("dir", "'data/x/dir' is a dir"), ("a/b", "'data/x/a' is not a dir")]:
        reply = unpack(api, archives.tar_of([good[1], archives.tar_member(name, large)]))
        assert (reply.status, reply.detail) == (409, f"{detail}ectory")
    assert api.get("/files/data/?recursive=true&details=true").json() == before
    assert staged(api.gateway) == []


def test_an_archive_is_known_by_its_bytes_and_nothing_else(api: Api) -> None:
    assert "it is neither" in fault(unpack(api, b"hello world"))
    assert unpack(api, archives.tar_gz({"a": b"x"})).status == 201
    assert api.upload("data/x", "a.tar", b"hello").status == 201
    assert (
        unpack(api, archives.tar({"b": b"x"}), query="unpack=false").json()["path"]
        == "data/x/archive"
    )
    assert unpack(api, archives.tar({"b": b"x"}), query="unpack=perhaps").faults() == {
        (("query", "unpack"), "bool_parsing")
    }
    assert unpack(api, archives.tar({}), "data/new").json() == []
    assert unpack(api, archives.zipped({}), "config/").json() == []


def test_a_form_without_a_file_or_with_two_is_refused(api: Api) -> None:
    reply = api.post("/files/data/x/upload?unpack=true", body=b"", headers={})
    assert reply.faults() == {(("body", "file"), "missing")}
    assert api.post("/files/output/x/upload?unpack=1").faults() == {
        (("path", "f_type"), "enum"),
        (("body", "file"), "missing"),
    }
    body, kind = multipart("one.tar", archives.tar({"a": b"x"}))
    mark = kind.partition("boundary=")[2].encode()
    second = (
        b'--%b\r\nContent-Disposition: form-data; name="file"; filename="b"\r\n\r\nx\r\n' % mark
    )
    end = b"--%b--" % mark
    body = body.replace(end, second + end)
    target = "/files/data/up/upload?unpack=true"
    reply = api.post(target, body=body, headers={"Content-Type": kind})
    assert reply.faults() == {(("body", "file"), "too_many")}
    assert_nothing_is_left(api)


def half_a_request(api: Api) -> bytes:
    body, kind = multipart("archive", archives.tar(CONTENT))
    head = (
        "POST /files/data/up/upload?unpack=true HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {api.token}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body[: len(body) // 2]


def test_a_client_that_stops_in_the_middle_is_answered_408(api_with: Callable[..., Api]) -> None:
    api = api_with(CLIENT_TIMEOUT="1.5")
    reply = api.gateway.raw(half_a_request(api))
    assert (reply.status, reply.detail) == (408, "The body did not come in time")
    assert_nothing_is_left(api)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(api: Api) -> None:
    folder = api.gateway.root / ".opencloud-staging"
    with socket.create_connection(("127.0.0.1", api.gateway.port), timeout=30) as connection:
        connection.sendall(half_a_request(api))
        asyncio.run(eventually(lambda: [*folder.rglob("large.bin")]))
    asyncio.run(eventually(lambda: not staged(api.gateway)))
    assert_nothing_is_left(api)


@pytest.mark.parametrize(
    ("limits", "detail"),
    [
        ({"MAX_UNPACK_FILES": "3"}, "An archive may hold at most 3 files and directories"),
        ({"MAX_UNPACK_BYTES": "999"}, "The files of an archive may have at most 999 bytes in all"),
        ({"MAX_UPLOAD_BYTES": "599"}, "A file may have at most 599 bytes"),
        (
            {"MAX_USER_BYTES": "999"},
            "Your files may take at most 999 bytes in all, and 0 bytes are",
        ),
    ],
)
def test_limits_hold_whatever_the_archive_claims(
    api_with: Callable[..., Api], limits: dict[str, str], detail: str
) -> None:
    api = api_with(**limits)
    for make in MAKERS.values():
        reply = unpack(api, make({"a": b"x" * 600, "d/e/b": b"y" * 400}))
        assert reply.status == 413
        assert reply.detail.startswith(detail)
    assert_nothing_is_left(api)


def test_space_that_must_stay_free_stays_free(api_with: Callable[..., Api]) -> None:
    api = api_with(MIN_FREE_BYTES=str(1 << 60))
    assert unpack(api, archives.tar({"a": b"x"})).status == 507
    assert_nothing_is_left(api)


def test_what_is_unpacked_is_counted(api_with: Callable[..., Api]) -> None:
    api = api_with(MAX_USER_BYTES="2000")
    for _ in range(3):
        assert unpack(api, archives.tar({"a": b"x" * 600, "b": b"y" * 400})).status == 201
    assert api.get("/user/usage").json()["bytes"]["used"] == 1000
    assert unpack(api, archives.tar({"c": b"x" * 1001})).status == 413
    assert api.get("/user/usage").json()["bytes"]["used"] == 1000


def test_a_long_answer_names_every_file(api: Api) -> None:
    content = {f"d{number // 100}/{number}": b"x" for number in range(2500)}
    reply = unpack(api, archives.tar_gz(content))
    assert [entry["path"] for entry in reply.json()] == [f"data/x/{name}" for name in content]


def test_a_database_that_is_away_is_waited_for_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    async def away(noted: Sequence[Noted]) -> None:
        tries.append(len(noted))
        raise DatabaseUnavailable("it is away")

    monkeypatch.setattr(api.gateway.app[DIGESTS]._notes, "write_at_once", away)
    reply = unpack(api, archives.tar_gz({str(number): b"x" for number in range(1200)}))
    assert (len(reply.json()), len(tries)) == (1200, 1)


PROGRAMS = {
    "tar": ["tar", "-cf", "-", "."],
    "tar of a folder": ["tar", "-czf", "-", "exp", "large.bin"],
    "posix tar": ["tar", "--format=posix", "--zstd", "-cf", "-", "."],
    "old tar": ["tar", "--format=v7", "-cf", "-", "exp", "large.bin"],
    "bsdtar": ["bsdtar", "-cf", "-", "."],
    "zip": ["zip", "-q", "-r", "-", "."],
    "stored zip": ["zip", "-q", "-r", "-0", "made.zip", "."],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_programs_pack_is_unpacked(api: Api, program: str, tmp_path: Path) -> None:
    command = PROGRAMS[program]
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    reply = unpack(api, archives.packed(command, tmp_path, CONTENT))
    assert reply.status == 201, reply
    assert contents(api) == {f"data/x/{name}": data for name, data in FILES.items()}
    assert "data/x/exp/nothing/" in api.paths("data/", "?recursive=true")


def test_a_directory_that_was_downloaded_can_be_unpacked(api: Api) -> None:
    assert unpack(api, archives.tar(CONTENT)).status == 201
    downloaded = api.get("/files/data/x/download").body
    assert unpack(api, downloaded, "artifact/y").status == 201
    assert contents(api, "artifact") == {f"artifact/y/{name}": data for name, data in FILES.items()}


@pytest.mark.parametrize("command", [["tar", "-cf", "-", "."], ["zip", "-qry", "made.zip", "."]])
def test_links_of_a_folder_are_refused_by_name(
    api: Api, command: list[str], tmp_path: Path
) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    (tmp_path / "second").symlink_to("/etc/passwd")
    archive = archives.packed(command, tmp_path, {"first": b"1"})
    assert "second' given: a symbolic link" in fault(unpack(api, archive))
    assert contents(api) == {}


@on_both_storages
def test_the_digest_of_each_member_is_known(api: Api) -> None:
    api.upload("data/x/exp", "a.txt", b"older")
    assert unpack(api, archives.tar(CONTENT)).status == 201
    entries = api.get("/files/data/?details=true&recursive=true&show_dirs=false").json()
    sums = {f"data/x/{name}": hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert {entry["path"]: entry["sha256"] for entry in entries} == sums


def test_an_archive_that_is_not_the_stated_one_is_refused_whole(api: Api) -> None:
    archive = archives.tar(CONTENT)
    stated = {"sha256": hashlib.sha256(archive).hexdigest()}
    for sent, status in ((archive + b"x", 422), (archive, 201)):
        body, kind = multipart("archive", sent, fields=stated)
        target = "/files/data/x/upload?unpack=true"
        reply = api.post(target, body=body, headers={"Content-Type": kind})
        assert reply.status == status, reply
        if status == 422:
            assert reply.faults() == {(("body", "sha256"), "value_error")}
            assert contents(api) == {}
    assert len(contents(api)) == len(FILES)
