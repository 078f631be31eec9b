"""Digests: those of files that arrived are known, no other bytes are ever shown with them."""

import asyncio
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.database.errors import DatabaseUnavailable
from devtools.waiting import eventually
from gateway.files.digests.sums import RunningSum
from gateway.files.handlers import DIGESTS
from tests.support.gateway import (
    FRONTEND,
    Api,
    Reply,
    multipart,
    on_both_databases,
    on_both_storages,
    rows,
)
from tests.support.tus import PORTION, Tus, metadata, repr_digest

WANTED = {"Want-Repr-Digest": "sha-256=1"}
CONTENT = b"content"
OTHER = b"changed"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
URL = "/files/data/x/f.txt/download"


def digest_of(api: Api, target: str = URL, method: str = "HEAD") -> str | None:
    reply = api.send(method, target, headers=WANTED)
    assert reply.status == 200, reply
    return reply.headers.get("repr-digest")


def shown(api: Api, directory: str = "data/x/") -> dict[str, str | None]:
    """What a listing shows, by path."""
    reply = api.get(f"/files/{directory}?details=true&show_dirs=false&recursive=true")
    return {entry["path"]: entry.get("sha256") for entry in reply.json()}


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of what is summed."""
    sizes: list[int] = []
    add = RunningSum.add

    async def counted(self: RunningSum, chunk: Any) -> None:
        sizes.append(len(chunk))
        await add(self, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(RunningSum, "add", counted)
        yield sizes


def age(path: Path, seconds: float = 10.0) -> None:
    """Let a file seem to have been written so long ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


# -- known files --------------------------------------------------------------------------------
@on_both_storages
@pytest.mark.parametrize("size", [0, 7, 100_000, 9 << 20])
def test_an_upload_is_answered_with_its_digest_which_is_known_from_then_on(
    api: Api, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(size)
    stored = api.upload("data/x", "f.txt", content)
    assert stored.headers["repr-digest"] == repr_digest(content)
    with counting(monkeypatch) as sizes:
        assert digest_of(api) == repr_digest(content)
        assert digest_of(api, method="GET") == repr_digest(content)
    assert sizes == []
    assert shown(api) == {"data/x/f.txt": hashlib.sha256(content).hexdigest()}


@on_both_storages
def test_so_is_that_of_a_resumable_upload(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(9 << 20)
    reply = Tus(api).send(
        "POST",
        "/uploads",
        content,
        Upload_Length=str(len(content)),
        Upload_Metadata=metadata(path="data/x/f.txt"),
        Content_Type=PORTION,
    )
    assert reply.status == 201, reply
    with counting(monkeypatch) as sizes:
        assert digest_of(api) == repr_digest(content)
    assert sizes == []
    assert shown(api) == {"data/x/f.txt": hashlib.sha256(content).hexdigest()}


@on_both_databases
async def test_it_is_written_for_other_gateways_and_survives_a_restart(api: Api) -> None:
    api.upload("data/x", "f.txt", CONTENT)
    api.upload("data/x", "f.txt", OTHER)
    statement = "SELECT sha256 FROM file_digests WHERE user_id = :user AND path = 'data/x/f.txt'"
    expected = [(hashlib.sha256(OTHER).hexdigest(),)]
    await eventually(lambda: [*map(tuple, rows(api.gateway, statement, user=api.user))] == expected)
    assert shown(api) == {"data/x/f.txt": expected[0][0]}


@on_both_storages
@pytest.mark.parametrize("size", [7, 9 << 20])
def test_it_follows_a_file_that_is_renamed(api: Api, size: int) -> None:
    content = os.urandom(size)
    api.upload("data/x", "f.txt", content)
    assert api.put("/files/data/x/f.txt", json={"path": "config/y/g.txt"}).status == 200
    assert shown(api, "config/") == {"config/y/g.txt": hashlib.sha256(content).hexdigest()}
    assert digest_of(api, "/files/config/y/g.txt/download") == repr_digest(content)


@on_both_storages
def test_it_is_only_answered_where_it_is_wanted_and_a_body_comes(api: Api) -> None:
    api.upload("data/x", "f.txt", CONTENT)
    etag = api.get(URL).headers["etag"]
    for headers, status in (
        ({}, 200),
        ({"Want-Repr-Digest": "sha-256=0"}, 200),
        ({"Want-Repr-Digest": "sha-512=1"}, 200),
        ({"Want-Repr-Digest": "sha-256="}, 200),
        (WANTED | {"If-None-Match": etag}, 304),
        (WANTED | {"If-Match": '"other"'}, 412),
        (WANTED | {"Range": "bytes=99-"}, 416),
    ):
        reply = api.get(URL, headers=headers)
        assert reply.status == status
        assert "repr-digest" not in reply.headers
    assert "repr-digest" not in api.get("/files/data/x/download", headers=WANTED).headers


def test_the_front_end_may_read_it(api: Api) -> None:
    api.upload("data/x", "f.txt", CONTENT)
    reply = api.get(URL, headers=WANTED | {"Origin": FRONTEND})
    assert "Repr-Digest" in reply.headers["access-control-expose-headers"]
    asking = {"Origin": FRONTEND, "Access-Control-Request-Method": "GET"}
    asking["Access-Control-Request-Headers"] = "want-repr-digest"
    reply = api.send("OPTIONS", URL, headers=asking)
    assert reply.headers["access-control-allow-headers"] == "want-repr-digest"


@on_both_storages
@pytest.mark.parametrize("ranges", ["bytes=1-2", "bytes=0-0,4-5"])
def test_a_part_is_answered_with_the_digest_of_the_whole_file(api: Api, ranges: str) -> None:
    api.upload("data/x", "f.txt", CONTENT)
    reply = api.get(URL, headers=WANTED | {"Range": ranges})
    assert reply.status == 206
    assert reply.headers["repr-digest"] == repr_digest(CONTENT)


# -- files that change --------------------------------------------------------------------------
def in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(OTHER)


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(OTHER)
    other.replace(path)


def removed_and_made_again(path: Path) -> None:
    path.unlink()
    path.write_bytes(OTHER)


@pytest.mark.parametrize("change", [in_place, replaced, removed_and_made_again])
@pytest.mark.parametrize("resumable", [False, True])
def test_a_file_that_was_changed_at_once_never_shows_the_digest_of_what_it_was(
    api: Api, change: Callable[[Path], None], resumable: bool
) -> None:
    for _ in range(20):  # the clock's ticks are some milliseconds apart
        if resumable:
            where = {"Upload_Length": "7", "Upload_Metadata": metadata(path="data/x/f.txt")}
            assert Tus(api).send("POST", "/uploads", CONTENT, **where).status == 201
        else:
            api.upload("data/x", "f.txt", CONTENT)
        change(api.tree / "data/x/f.txt")
        assert shown(api) == {"data/x/f.txt": None}
        assert digest_of(api) == repr_digest(OTHER)


@on_both_storages
def test_a_replaced_file_has_the_digest_of_the_later_one(api: Api) -> None:
    for content in (CONTENT, OTHER, CONTENT):
        api.upload("data/x", "f.txt", content)
        assert digest_of(api) == repr_digest(content)
        assert shown(api) == {"data/x/f.txt": hashlib.sha256(content).hexdigest()}


# -- computing ----------------------------------------------------------------------------------
def test_what_is_not_known_is_computed_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(3 << 20)
    age(api.plant("data/x/f.txt", content))
    assert shown(api) == {"data/x/f.txt": None}
    with counting(monkeypatch) as sizes:
        for _ in range(3):
            assert digest_of(api) == repr_digest(content)
    assert sum(sizes) == len(content)
    assert shown(api) == {"data/x/f.txt": hashlib.sha256(content).hexdigest()}


def test_of_a_file_that_was_just_written_it_is_not_kept(api: Api) -> None:
    # the next write may leave its version as it is
    age(api.plant("data/x/f.txt"), -10)
    assert digest_of(api) == repr_digest(CONTENT)
    assert shown(api) == {"data/x/f.txt": None}


class Held:
    """Holds sums in front of the first chunk until `resume`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started, self.resume, self.ended = (threading.Event() for _ in range(3))
        self.sums = 0
        add = RunningSum.add

        async def held(sum_: RunningSum, chunk: Any) -> None:
            self.sums += 1
            self.started.set()
            try:
                while not self.resume.is_set():
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                self.ended.set()
                raise
            await add(sum_, chunk)

        monkeypatch.setattr(RunningSum, "add", held)


@contextmanager
def asking(api: Api, answers: list[Reply], count: int = 1) -> Iterator[None]:
    threads = [
        threading.Thread(target=lambda: answers.append(api.send("HEAD", URL, headers=WANTED)))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def test_a_file_that_changes_while_it_is_read_has_none(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = api.plant("data/x/f.txt")
    age(file)
    held, answers = Held(monkeypatch), []
    with asking(api, answers):
        assert held.started.wait(10)
        in_place(file)
        held.resume.set()
    assert [reply.status for reply in answers] == [200]
    assert "repr-digest" not in answers[0].headers
    assert shown(api) == {"data/x/f.txt": None}


async def test_requests_for_one_file_share_a_computation_and_others_are_served_meanwhile(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(api.plant("data/x/f.txt"))
    held, answers = Held(monkeypatch), []
    with asking(api, answers, 3):
        assert held.started.wait(10)
        assert api.get("/files/data/x/").status == 200
        assert api.get(URL).body == CONTENT
        running = api.gateway.app[DIGESTS]._running
        await eventually(lambda: len(running) == 1)
        held.resume.set()
    assert {reply.headers["repr-digest"] for reply in answers} == {repr_digest(CONTENT)}
    assert held.sums == 1
    assert not running


async def test_a_client_that_leaves_ends_the_computation(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(api.plant("data/x/f.txt"))
    held = Held(monkeypatch)
    with socket.create_connection(("127.0.0.1", api.gateway.port)) as connection:
        connection.sendall(
            f"HEAD {URL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
            "Want-Repr-Digest: sha-256=1\r\n\r\n".encode()
        )
        assert held.started.wait(10)
    assert held.ended.wait(10)
    await eventually(lambda: not api.gateway.app[DIGESTS]._running)


@on_both_storages
async def test_without_the_database_files_are_stored_and_listed_all_the_same(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away:
        def statement(self) -> Any:
            raise DatabaseUnavailable("it is away")

        reading = statement

    digests = api.gateway.app[DIGESTS]
    with monkeypatch.context() as patch:
        patch.setattr(digests, "_database", Away())
        patch.setattr(digests._notes, "_database", Away())
        assert api.upload("data/x", "f.txt", CONTENT).status == 201
        assert shown(api) == {"data/x/f.txt": None}
        assert api.get(URL, headers=WANTED).body == CONTENT
    await eventually(lambda: not digests._notes._waiting)
    assert shown(api) == {"data/x/f.txt": SHA256}


# -- stated by the client -----------------------------------------------------------------------
def send(api: Api, *, before: str | None = None, after: str | None = None, head: str = "") -> Reply:
    """An upload of the content, with a field before or after the file, or headers in its part."""
    body, kind = multipart("f.txt", CONTENT, fields={} if before is None else {"sha256": before})
    mark = kind.partition("boundary=")[2].encode()
    if after is not None:
        part = f'\r\nContent-Disposition: form-data; name="sha256"\r\n\r\n{after}\r\n--'.encode()
        body = body.removesuffix(b"--\r\n") + part + mark + b"--\r\n"
    if head:
        type_line = b"Content-Type: application/octet-stream\r\n"
        body = body.replace(type_line, type_line + head.encode() + b"\r\n")
    return api.post("/files/data/x/upload", body=body, headers={"Content-Type": kind})


WRONG = hashlib.sha256(OTHER).hexdigest()
RIGHT_LINE, WRONG_LINE = repr_digest(CONTENT), repr_digest(OTHER)


@pytest.mark.parametrize(
    "stated",
    [
        {"before": SHA256}, {"before": SHA256.upper()}, {"before": f" {SHA256}\r\n"},
        {"after": SHA256}, {"before": SHA256, "after": SHA256.upper()},
        {"head": f"Repr-Digest: {RIGHT_LINE}"}, {"head": f"content-digest: {RIGHT_LINE}"},
        {"head": f"Repr-Digest: md5=:AAAA:\r\nRepr-Digest: {RIGHT_LINE}", "before": SHA256},
        {"head": "Content-Digest: sha-512=:AAAA:"}, {"head": "Digest: sha-256=no"},
        {"before": ""}, {"before": " ", "after": SHA256},
    ],
)  # fmt: skip
def test_a_file_that_is_the_stated_one_is_stored(api: Api, stated: dict[str, str]) -> None:
    assert send(api, **stated).status == 201
    assert (api.tree / "data/x/f.txt").read_bytes() == CONTENT


@on_both_storages
@pytest.mark.parametrize(
    "stated",
    [
        {"before": WRONG}, {"after": WRONG},
        {"head": f"Repr-Digest: {WRONG_LINE}"}, {"head": f"Content-Digest: {WRONG_LINE}"},
        {"before": "00"}, {"before": SHA256 + "0"}, {"before": "g" * 64},
        {"before": "0" * 3_000}, {"after": "no"},
        {"head": "Repr-Digest: sha-256=:AAAA:"}, {"head": f"Content-Digest: sha-256={SHA256}"},
        {"head": "Repr-Digest: =,"},
        {"before": SHA256, "after": WRONG},
        {"before": SHA256, "head": f"Repr-Digest: {WRONG_LINE}"},
        {"head": f"Repr-Digest: {RIGHT_LINE}\r\nContent-Digest: {WRONG_LINE}"},
    ],
)  # fmt: skip
def test_any_other_statement_is_refused_and_nothing_changes(
    api: Api, stated: dict[str, str]
) -> None:
    assert api.upload("data/x", "f.txt", b"before").status == 201
    reply = send(api, **stated)
    assert reply.faults() == {(("body", "sha256"), "value_error")}
    assert api.get(URL).body == b"before"
    assert shown(api) == {"data/x/f.txt": hashlib.sha256(b"before").hexdigest()}


def test_a_refused_digest_is_one_fault_among_others(api: Api) -> None:
    body, kind = multipart("f.txt", CONTENT, fields={"sha256": "<b>"})
    reply = api.post("/files/output/x/upload", body=body, headers={"Content-Type": kind})
    assert reply.faults() == {(("path", "f_type"), "enum"), (("body", "sha256"), "value_error")}
    assert "<" not in reply.text


def test_a_file_named_like_the_field_is_no_digest_of_another(api: Api) -> None:
    assert api.upload("data/x", "sha256", CONTENT).status == 201


# -- prepared uploads ---------------------------------------------------------------------------
def prepared(api: Api, query: str) -> dict[str, Any]:
    reply = api.post(f"/files/data/x/url{query}")
    assert reply.status == 201, reply
    return reply.json()


def test_a_prepared_upload_carries_the_digest_as_a_form_field(api: Api) -> None:
    assert prepared(api, "")["data"] == {}
    request = prepared(api, f"?sha256={SHA256.upper()}")
    assert request["data"] == {"sha256": SHA256}
    refused = api.follow(request, ("f.txt", OTHER))
    assert refused.faults() == {(("body", "sha256"), "value_error")}
    assert api.follow(request, ("f.txt", CONTENT)).status == 201


@on_both_storages
@pytest.mark.parametrize("given", ["", "00", "g" * 64, SHA256 + "00", "<b>"])
def test_a_malformed_digest_in_the_query_is_refused(api: Api, given: str) -> None:
    reply = api.post(f"/files/data/x/url?sha256={given}")
    assert reply.faults() == {(("query", "sha256"), "value_error")}
