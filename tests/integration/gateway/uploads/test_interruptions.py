"""What remains of a portion that ends early, and who may write when."""

import os
import socket
from contextlib import closing

import pytest

from common.database.engine import Database
from common.storage.factory import open_storage
from devtools.postgres import run_apart
from devtools.user_pool import Issuer
from dispatcher.uploads import UploadSweep
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Gateway, fresh, on_both_databases, on_both_storages
from tests.support.tus import (
    Tus,
    begin_portion,
    checksum,
    expire,
    repr_digest,
    resume,
    until_free,
    until_offset,
)

MEBIBYTE = 1 << 20


@pytest.fixture
def tus(api: Api) -> Tus:
    return Tus(api)


def answer_of(connection: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found and (more := connection.recv(1 << 16)):
        found += more
    return found.partition(b"\r\n")[0]


@on_both_storages
def test_what_arrived_before_a_cut_is_kept(tus: Tus) -> None:
    content = os.urandom(20 * MEBIBYTE)
    target = tus.begin(len(content), "data/a")
    sent = 19 * MEBIBYTE
    with closing(begin_portion(tus, target, 0, len(content))) as connection:
        connection.sendall(content[:sent])
    until_offset(tus, target, sent - 2 * MEBIBYTE)
    resume(tus, target, content)
    assert tus.head(target).headers["repr-digest"] == repr_digest(content)
    assert tus.content("data/a") == content


def test_a_portion_with_a_checksum_that_is_cut_changes_nothing(tus: Tus) -> None:
    target = tus.begin(10)
    tus.patch(target, 0, b"12")
    extra = "".join(f"{name}: {value}\r\n" for name, value in checksum(b"345678").items())
    with closing(begin_portion(tus, target, 2, 6, extra=extra)) as connection:
        connection.sendall(b"345")
    until_free(tus, target, 2, b"3")
    assert tus.offset(target) == 3


def test_a_second_writer_is_refused_while_one_is_at_it(tus: Tus) -> None:
    target = tus.begin(6, "data/a")
    with closing(begin_portion(tus, target, 0, 6)) as connection:
        connection.sendall(b"123")
        until_offset(tus, target, 3)  # confirmed while the rest is awaited
        refused = tus.patch(target, 3, b"456")
        assert (refused.status, refused.headers["retry-after"]) == (423, "1")
        assert tus.send("DELETE", target).status == 423
        connection.sendall(b"456")
        assert b" 204 " in answer_of(connection)
    assert tus.content("data/a") == b"123456"


@pytest.fixture
def impatient(start_gateway: StartGateway, issuer: Issuer) -> Tus:
    user = fresh("user")
    return Tus(Api(start_gateway(CLIENT_TIMEOUT="2"), user, issuer.token(user)))


def test_a_client_that_stands_still_frees_the_upload(impatient: Tus) -> None:
    target = impatient.begin(6, "data/a")
    with closing(begin_portion(impatient, target, 0, 6)) as connection:
        connection.sendall(b"123")
        assert b" 408 " in answer_of(connection)
    assert impatient.offset(target) == 3
    assert impatient.patch(target, 3, b"456").status == 204


@pytest.mark.parametrize("quota", [{"MAX_USER_BYTES": "1000"}, {"MAX_UPLOAD_BYTES": "1000"}])
def test_a_file_that_is_too_large_is_refused_at_its_creation(
    start_gateway: StartGateway, issuer: Issuer, quota: dict[str, str]
) -> None:
    user = fresh("user")
    tus = Tus(Api(start_gateway(**quota), user, issuer.token(user)))
    most = tus.send("OPTIONS", "/uploads").headers.get("tus-max-size")
    assert most == quota.get("MAX_UPLOAD_BYTES")
    assert tus.create(1001).status == 413
    target = tus.begin(1000, "data/a")
    assert tus.patch(target, 0, bytes(1000)).status == 204


def test_bytes_of_all_uploads_count_before_they_are_whole(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    user = fresh("user")
    tus = Tus(Api(start_gateway(MAX_USER_BYTES="1000"), user, issuer.token(user)))
    first, second = tus.begin(900, "data/a"), tus.begin(900, "data/b")
    assert tus.patch(first, 0, bytes(600)).status == 204
    refused = tus.patch(second, 0, bytes(500))
    assert refused.status == 413
    assert "1000 bytes in all, and 600 bytes are in use" in refused.detail
    assert tus.offset(second) == 0
    assert tus.patch(second, 0, bytes(400)).status == 204
    assert tus.create(1).status == 413
    assert tus.send("DELETE", second).status == 204
    assert tus.patch(first, 600, bytes(300)).status == 204
    assert tus.create(101).status == 413
    assert tus.create(100).status == 201


def test_a_quota_that_is_reached_within_a_portion_keeps_what_fits(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    user = fresh("user")
    tus = Tus(Api(start_gateway(MAX_USER_BYTES=str(5 * MEBIBYTE)), user, issuer.token(user)))
    target = tus.begin(5 * MEBIBYTE, "data/a")
    tus.api.upload("data/b", "f", bytes(2 * MEBIBYTE))
    assert tus.patch_chunked(target, 0, bytes(5 * MEBIBYTE)).status == 413
    offset = tus.offset(target)
    assert 0 < offset <= 3 * MEBIBYTE
    assert tus.api.delete("/files/data/b/").status == 204
    assert tus.patch(target, offset, bytes(5 * MEBIBYTE - offset)).status == 204
    assert tus.content("data/a") == bytes(5 * MEBIBYTE)


@on_both_storages
def test_a_directory_that_is_deleted_meanwhile_is_there_again(tus: Tus) -> None:
    target = tus.begin(6, "data/x/y/a")
    tus.api.upload("data/x/y", "other", b"1")
    tus.patch(target, 0, b"123")
    assert tus.api.delete("/files/data/x/").status == 204
    assert tus.patch(target, 3, b"456").status == 204
    assert tus.api.paths("data/x/y") == ["data/x/y/a"]
    assert tus.content("data/x/y/a") == b"123456"


@on_both_databases
def test_a_sweep_leaves_a_portion_alone_that_began_before_the_upload_expired(tus: Tus) -> None:
    running, resting = tus.begin(6, "data/a"), tus.begin(6, "data/b")
    with closing(begin_portion(tus, running, 0, 6)) as connection:
        connection.sendall(b"123")
        until_offset(tus, running, 3)
        for target in (running, resting):
            expire(tus.api.gateway, target)
        sweep_uploads(tus.api.gateway)
        connection.sendall(b"456")
        assert b" 204 " in answer_of(connection)
    assert tus.offset(running) == 6
    assert tus.content("data/a") == b"123456"
    assert tus.head(resting).status == 410


def sweep_uploads(gateway: Gateway) -> None:
    async def run() -> None:
        database = Database(gateway.settings.database)
        try:
            async with open_storage(gateway.settings.storage) as storage:
                await UploadSweep(database=database, storage=storage).sweep()
        finally:
            await database.close()

    run_apart(run())


def test_space_that_must_stay_free_is_kept(start_gateway: StartGateway, issuer: Issuer) -> None:
    user = fresh("user")
    tus = Tus(Api(start_gateway(MIN_FREE_BYTES=str(1 << 60)), user, issuer.token(user)))
    assert tus.create(1).status == 507


def test_staged_bytes_that_are_lost_end_the_upload(tus: Tus) -> None:
    staging = tus.api.gateway.root / ".opencloud-staging"
    target = tus.begin(6, "data/a")
    before = set(staging.glob("*"))
    tus.patch(target, 0, b"123")
    (staged,) = set(staging.glob("*")) - before
    staged.unlink()
    assert tus.patch(target, 3, b"456").status == 410
    assert tus.head(target).status == 404
    assert tus.api.paths("data") == []
