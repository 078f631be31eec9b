"""Uploads by tus 1.0.0: the sentences of the protocol, and what becomes of the files."""

import hashlib
import os
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from tests.support.gateway import FRONTEND, Api, on_both_databases, on_both_storages, rows
from tests.support.metrics import metric
from tests.support.tus import PORTION, Tus, begin_portion, checksum, expire, metadata, repr_digest

MEBIBYTE = 1 << 20


@pytest.fixture
def tus(api: Api) -> Tus:
    return Tus(api)


# -- the protocol's core -------------------------------------------------------------------------
def test_options_name_what_is_supported(tus: Tus) -> None:
    reply = tus.send("OPTIONS", "/uploads", headers={"Tus-Resumable": ""})
    assert reply.status == 204
    assert reply.headers["tus-version"] == "1.0.0"
    assert set(reply.headers["tus-extension"].split(",")) == {
        *("creation", "creation-with-upload", "expiration", "checksum", "termination")
    }
    assert reply.headers["tus-checksum-algorithm"] == "sha1,sha256"
    assert "tus-max-size" not in reply.headers


@on_both_databases
def test_a_file_arrives_in_portions_and_appears_with_the_last(tus: Tus) -> None:
    content = os.urandom(3 * MEBIBYTE + 17)
    created = tus.create(len(content), "data/exp 1/frames.tif")
    assert created.status == 201
    location = created.headers["location"]
    assert location.startswith(f"{tus.api.gateway.base}/uploads/")
    target = location.removeprefix(tus.api.gateway.base)
    begin = 0
    for end in (MEBIBYTE, 2 * MEBIBYTE + 5, len(content)):
        assert tus.api.get("/files/data/exp%201").status == 404
        assert tus.offset(target) == begin
        reply = tus.patch(target, begin, content[begin:end])
        assert (reply.status, reply.headers["upload-offset"]) == (204, str(end)), reply
        begin = end
    assert reply.headers["repr-digest"] == repr_digest(content)
    download = tus.api.get("/files/data/exp%201/frames.tif/download")
    assert download.body == content
    assert download.headers["etag"] == reply.headers["etag"]
    head = tus.head(target)
    assert head.headers["upload-offset"] == head.headers["upload-length"] == str(len(content))
    assert head.headers["repr-digest"] == repr_digest(content)


@on_both_storages
def test_a_file_arrives_on_either_storage(tus: Tus) -> None:
    content = os.urandom(9 * MEBIBYTE)
    target = tus.begin(len(content), "data/a.bin")
    for begin in range(0, len(content), 3 * MEBIBYTE):
        reply = tus.patch(target, begin, content[begin : begin + 3 * MEBIBYTE])
        assert reply.status == 204, reply
    assert reply.headers["repr-digest"] == repr_digest(content)
    assert tus.content("data/a.bin") == content
    assert tus.begin(0, "data/empty")
    assert tus.content("data/empty") == b""
    assert tus.send("DELETE", tus.begin(5)).status == 204
    dropped = tus.begin(4, "data/wrong", sha256="0" * 64)
    assert tus.patch(dropped, 0, b"1234").status == 460
    assert tus.api.paths("data") == ["data/a.bin", "data/empty"]


def test_a_head_is_not_cached_and_repeats_what_was_sent(tus: Tus) -> None:
    sent = metadata(path="data/a", filename="b") + ",flag"
    created = tus.send("POST", "/uploads", Upload_Length="3", Upload_Metadata=sent)
    head = tus.head(created.headers["location"].removeprefix(tus.api.gateway.base))
    assert head.headers["cache-control"] == "no-store"
    assert head.headers["upload-metadata"] == sent
    assert (head.headers["upload-length"], head.headers["upload-offset"]) == ("3", "0")
    missing = tus.head("/uploads/nothing")
    assert (missing.status, missing.headers["cache-control"]) == (404, "no-store")
    assert "upload-offset" not in missing.headers


@pytest.mark.parametrize("version", ["", "0.2.2", "1.0.1"])
@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
def test_another_version_is_refused(tus: Tus, method: str, version: str) -> None:
    target = "/uploads" if method == "POST" else tus.begin(3)
    reply = tus.send(method, target, headers={"Tus-Resumable": version, "Upload-Offset": "0"})
    assert reply.status == 412
    assert reply.headers["tus-version"] == "1.0.0"


def test_a_wrong_offset_changes_nothing(tus: Tus) -> None:
    target = tus.begin(6)
    assert tus.patch(target, 0, b"123").status == 204
    for offset in (0, 2, 4, 6, 7):
        assert tus.patch(target, offset, b"456").status == 409
    assert tus.offset(target) == 3


@pytest.mark.parametrize("offset", ["", "-1", "x", "1.5", "9" * 30])
def test_an_offset_that_is_none_is_refused(tus: Tus, offset: str) -> None:
    reply = tus.send("PATCH", tus.begin(6), b"1", {"Upload-Offset": offset})
    assert {loc for loc, _ in reply.faults()} == {("header", "upload-offset")}


@pytest.mark.parametrize("kind", ["", "application/octet-stream", "text/plain"])
def test_a_body_of_another_type_is_refused(tus: Tus, kind: str) -> None:
    target = tus.begin(3)
    headers = {"Content-Type": kind, "Upload-Offset": "0"}
    assert tus.send("PATCH", target, b"123", headers).status == 415
    assert tus.create(3, body=b"123", headers={"Content-Type": kind}).status == 415
    encoded = {"Content-Encoding": "gzip"}
    assert tus.patch(target, 0, b"123", encoded).status == 415
    assert tus.offset(target) == 0


def test_more_bytes_than_announced_are_refused(tus: Tus) -> None:
    target = tus.begin(3, "data/a")
    assert tus.patch(target, 0, b"1234").status == 413
    assert tus.offset(target) == 0
    assert tus.patch_chunked(target, 0, b"1234").status == 413
    assert tus.offset(target) == 0
    assert tus.patch_chunked(target, 0, b"123").status == 204
    assert tus.content("data/a") == b"123"


def test_an_empty_portion_confirms_where_the_upload_stands(tus: Tus) -> None:
    target = tus.begin(3, "data/a")
    for offset, body in ((0, b""), (0, b"123"), (3, b""), (3, b"")):
        reply = tus.patch(target, offset, body)
        assert (reply.status, reply.headers["upload-offset"]) == (204, str(offset + len(body)))
    assert reply.headers["repr-digest"] == repr_digest(b"123")
    assert tus.patch(target, 3, b"4").status == 413


def test_a_client_may_wait_for_leave_to_send(tus: Tus) -> None:
    target = tus.begin(3, "data/a")
    extra = "Expect: 100-continue\r\n"
    with closing(begin_portion(tus, target, 0, 3, extra=extra)) as connection:
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"123")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 204 ")
    assert tus.content("data/a") == b"123"


def test_every_answer_says_when_the_upload_expires(tus: Tus) -> None:
    created = tus.create(3)
    target = created.headers["location"].removeprefix(tus.api.gateway.base)
    for reply in (created, tus.head(target), tus.patch(target, 0, b"123"), tus.head(target)):
        assert parsedate_to_datetime(reply.headers["upload-expires"]) > datetime.now(UTC)


def test_a_method_may_be_overridden(tus: Tus) -> None:
    target = tus.begin(3, "data/a")
    override = "X-HTTP-Method-Override"
    reply = tus.send("POST", target, b"123", {override: "PATCH", "Upload-Offset": "0"})
    assert (reply.status, reply.headers["upload-offset"]) == (204, "3")
    for method in ("GET", "POST"):
        head = tus.send(method, target, headers={override: "HEAD"})
        assert (head.status, head.headers["upload-offset"]) == (200, "3")
    assert tus.send("POST", target, headers={override: "delete"}).status == 204
    assert tus.head(target).status == 404
    assert tus.api.send("POST", target).status == 405
    assert tus.api.send("POST", "/jobs", headers={override: "GET"}).status != 200


# -- creation ------------------------------------------------------------------------------------
def test_a_creation_may_bring_the_first_bytes(tus: Tus) -> None:
    reply = tus.create(6, "data/a", body=b"123")
    assert (reply.status, reply.headers["upload-offset"]) == (201, "3")
    target = reply.headers["location"].removeprefix(tus.api.gateway.base)
    assert tus.patch(target, 3, b"456").headers["repr-digest"] == repr_digest(b"123456")
    whole = tus.create(6, "data/b", body=b"123456", headers=checksum(b"123456"))
    assert whole.headers["repr-digest"] == repr_digest(b"123456")
    assert whole.headers["etag"]
    assert tus.content("data/a") == tus.content("data/b") == b"123456"


def test_nothing_is_left_of_a_creation_that_fails(tus: Tus) -> None:
    wrong = checksum(b"other")
    assert tus.create(3, "data/a", body=b"123", headers=wrong).status == 460
    assert tus.create(3, "data/a", body=b"1234").status == 413
    assert tus.create(3, "data/a", body=b"123", sha256="0" * 64).status == 460
    assert tus.create(0, "data/a", sha256="0" * 64).status == 460
    statement = "SELECT count(*) FROM uploads WHERE user_id = :user"
    assert rows(tus.api.gateway, statement, user=tus.api.user)[0][0] == 0
    assert tus.api.paths("data") == []


def test_an_upload_that_ends_with_its_creation_is_counted_once(tus: Tus) -> None:
    def ended() -> list[float]:
        outcomes = ("finished", "mismatched", "failed")
        return [metric("opencloud_uploads_ended_total", outcome=outcome) for outcome in outcomes]

    before = ended()
    tus.create(3, body=b"123")
    tus.create(3, body=b"123", sha256="0" * 64)
    tus.create(3, body=b"1234")
    assert ended() == [count + 1 for count in before]


def test_an_empty_file_is_there_with_its_creation(tus: Tus) -> None:
    reply = tus.create(0, "data/empty")
    assert reply.status == 201
    assert reply.headers["repr-digest"] == repr_digest(b"")
    assert tus.content("data/empty") == b""


@pytest.mark.parametrize(
    ("pairs", "path"),
    [
        ({"path": "config/x//y.yaml"}, "config/x/y.yaml"),
        ({"dir": "data/exp", "filename": "a.tif"}, "data/exp/a.tif"),
        ({"dir": "data", "filename": "tree/deep/b.tif"}, "data/b.tif"),
        ({"dir": "artifact/", "filename": "C:\\Users\\me\\ü.pt"}, "artifact/ü.pt"),
    ],
)
def test_the_metadata_say_where_the_file_is_to_be(tus: Tus, pairs, path: str) -> None:
    reply = tus.send(
        "POST", "/uploads", b"1", {"Upload-Length": "1", "Upload-Metadata": metadata(**pairs)}
    )
    assert reply.status == 201, reply
    directory = path.rpartition("/")[0]
    assert path in tus.api.paths(directory)


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "path",
        "path !",
        "path ZGF0YS9h,path ZGF0YS9h",
        ", ",
        "filename YQ==",
        "dir ZGF0YQ==",
        "path /w==",
        metadata(path="output/a"),
        metadata(path="nothing/a"),
        metadata(path="data/../config/a"),
        metadata(path="data/%2e%2e/a"),
        metadata(path="data/a/"),
        metadata(path="data/a\0b"),
        metadata(path="data/" + "x" * 300),
        metadata(path="data/" + "x/" * 600 + "y"),
        metadata(dir="log", filename="a"),
        metadata(path="data/a", sha256="123"),
    ],
)
def test_metadata_that_name_no_place_are_refused(tus: Tus, sent: str) -> None:
    headers = {"Upload-Length": "1", "Upload-Metadata": sent}
    reply = tus.send("POST", "/uploads", headers=headers)
    assert {loc for loc, _ in reply.faults()} == {("header", "upload-metadata")}


def test_a_length_is_required_and_may_not_be_deferred(tus: Tus) -> None:
    sent = metadata(path="data/a")
    reply = tus.send("POST", "/uploads", Upload_Metadata=sent)
    assert reply.faults() == {(("header", "upload-length"), "missing")}
    reply = tus.send("POST", "/uploads", Upload_Length="-1")
    assert {loc for loc, _ in reply.faults()} == {
        ("header", "upload-length"),
        ("header", "upload-metadata"),
    }
    reply = tus.send("POST", "/uploads", Upload_Metadata=sent, Upload_Defer_Length="1")
    assert reply.status == 400


@on_both_storages
def test_lengths_beyond_any_file_are_refused(tus: Tus, request: pytest.FixtureRequest) -> None:
    for length in (2**63, 10**19, 10**30):
        assert {loc for loc, _ in tus.create(length).faults()} == {("header", "upload-length")}
    if "s3" in request.node.name:
        assert tus.create(1 << 50).status == 507
    target = tus.begin(400 << 30, "data/large")
    assert tus.patch(target, 0, b"1").status == 204
    assert tus.send("DELETE", target).status == 204


@pytest.mark.parametrize("sent", ["partial", "final;/uploads/a /uploads/b"])
def test_uploads_are_not_concatenated(tus: Tus, sent: str) -> None:
    assert tus.create(3, headers={"Upload-Concat": sent}).status == 400


def test_a_place_that_is_taken_is_refused(tus: Tus) -> None:
    tus.api.upload("data/", "file", b"1")
    for path in ("data/file/below", "data"):
        reply = tus.create(1, path)
        assert reply.status == 409, reply


def test_a_place_that_is_taken_meanwhile_is_refused_until_it_is_free(tus: Tus) -> None:
    target = tus.begin(3, "data/x/a")
    tus.patch(target, 0, b"12")
    tus.api.delete("/files/data/x/")
    tus.api.post("/files/data/x/a/")
    assert tus.patch(target, 2, b"3").status == 409
    assert tus.head(target).status == 409
    tus.api.delete("/files/data/x/a/")
    assert tus.offset(target) == 3
    assert tus.content("data/x/a") == b"123"


def test_the_url_is_as_the_client_sees_this_service(tus: Tus) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "api.example.org"}
    reply = tus.create(1, headers=headers)
    assert reply.headers["location"].startswith("https://api.example.org/uploads/")


# -- checksums -----------------------------------------------------------------------------------
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
@on_both_storages
def test_a_portion_that_is_not_its_checksum_changes_nothing(tus: Tus, algorithm: str) -> None:
    target = tus.begin(6, "data/a")
    assert tus.patch(target, 0, b"123", checksum(b"123", algorithm)).status == 204
    assert tus.patch(target, 3, b"xyz", checksum(b"456", algorithm)).status == 460
    assert tus.offset(target) == 3
    reply = tus.patch(target, 3, b"456", checksum(b"456", algorithm))
    assert reply.headers["repr-digest"] == repr_digest(b"123456")
    assert tus.content("data/a") == b"123456"


@pytest.mark.parametrize(
    "sent", ["md5 1B2M2Y8AsgTpgAmY7PhCfg==", "sha1", "sha1 !", "sha1 MTIz", ""]
)
def test_a_checksum_that_is_none_is_refused(tus: Tus, sent: str) -> None:
    target = tus.begin(3)
    headers = {"Upload-Offset": "0", "Upload-Checksum": sent or " "}
    assert tus.send("PATCH", target, b"123", headers).status == 400
    assert tus.offset(target) == 0


def test_a_file_that_is_not_what_was_announced_is_not_stored(tus: Tus) -> None:
    right = hashlib.sha256(b"123456").hexdigest()
    for expected in (right.upper(), right):
        target = tus.begin(6, "data/right", sha256=expected)
        assert tus.patch(target, 0, b"123456").status == 204
    target = tus.begin(6, "data/wrong", sha256=right)
    tus.patch(target, 0, b"123")
    assert tus.patch(target, 3, b"xyz").status == 460
    assert tus.head(target).status == 404
    assert tus.api.paths("data") == ["data/right"]


# -- ownership, ends -----------------------------------------------------------------------------
@on_both_databases
@pytest.mark.parametrize("name", ["%00", "%ff", "x" * 3_000, "%F0%9F%98%80", "0" * 31])
def test_an_upload_that_cannot_be_does_not_exist(tus: Tus, name: str) -> None:
    assert tus.head(f"/uploads/{name}").status == 404
    assert tus.patch(f"/uploads/{name}", 0, b"1").status == 404
    assert tus.send("DELETE", f"/uploads/{name}").status == 404


def test_uploads_of_others_do_not_exist(tus: Tus, other: Api) -> None:
    target = tus.begin(3)
    foreign = Tus(other)
    for path in (target, "/uploads/nothing", f"/uploads/{'0' * 32}"):
        assert foreign.head(path).status == 404
        assert foreign.patch(path, 0, b"123").status == 404
        assert foreign.send("DELETE", path).status == 404
    assert tus.offset(target) == 0


def test_all_of_it_needs_a_user(anybody: Api) -> None:
    anonymous = Tus(anybody)
    for method, target in (
        *(("OPTIONS", "/uploads"), ("POST", "/uploads")),
        *((method, "/uploads/x") for method in ("HEAD", "PATCH", "DELETE")),
    ):
        assert anonymous.send(method, target).status == 401


@on_both_databases
def test_a_terminated_upload_is_gone_and_the_file_of_a_finished_one_stays(tus: Tus) -> None:
    staging = tus.api.gateway.root / ".opencloud-staging"
    before = set(staging.glob("*"))
    begun, finished = tus.begin(3), tus.begin(3, "data/a")
    tus.patch(begun, 0, b"12")
    tus.patch(finished, 0, b"123")
    for target in (begun, finished):
        assert tus.send("DELETE", target).status == 204
        assert tus.head(target).status == 404
        assert tus.patch(target, 2, b"3").status == 404
        assert tus.send("DELETE", target).status == 404
    assert tus.content("data/a") == b"123"
    assert set(staging.glob("*")) == before


@on_both_databases
def test_an_upload_expires_unless_bytes_arrive(tus: Tus) -> None:
    target = tus.begin(3)
    reply = tus.patch(target, 0, b"1")
    expires = parsedate_to_datetime(reply.headers["upload-expires"])
    assert abs(expires - datetime.now(UTC) - timedelta(days=1)) < timedelta(seconds=60)
    expire(tus.api.gateway, target)
    for reply in (tus.head(target), tus.patch(target, 1, b"2"), tus.send("DELETE", target)):
        assert reply.status == 410


# -- browsers ------------------------------------------------------------------------------------
def test_a_browser_may_send_and_read_all_headers(tus: Tus) -> None:
    asked = "tus-resumable,upload-length,upload-metadata,upload-offset,x-http-method-override"
    preflight = tus.api.send(
        "OPTIONS",
        "/uploads/x",
        headers={
            "Origin": FRONTEND,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": asked,
        },
    )
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-headers"] == asked
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    reply = tus.create(1, headers={"Origin": FRONTEND})
    exposed = set(reply.headers["access-control-expose-headers"].lower().split(", "))
    assert exposed >= {
        *("location", "upload-offset", "upload-length", "upload-metadata", "upload-expires"),
        *("tus-version", "tus-resumable", "tus-extension", "tus-max-size"),
        *("tus-checksum-algorithm", "repr-digest", "etag"),
    }


def test_a_cookie_needs_the_front_ends_origin_for_changes(tus: Tus, anybody: Api) -> None:
    target = tus.begin(3)
    cookie = Tus(Api(anybody.gateway, headers={"Cookie": f"Authorization=Bearer {tus.api.token}"}))
    assert cookie.head(target).status == 200
    assert cookie.patch(target, 0, b"1").status == 403
    override = {"X-HTTP-Method-Override": "DELETE"}
    assert cookie.send("GET", target, headers=override).status == 403
    assert cookie.patch(target, 0, b"1", {"Origin": FRONTEND}).status == 204


def test_content_types_are_compared_without_case_and_parameters(tus: Tus) -> None:
    headers = {"Content-Type": PORTION.title() + "; x=y"}
    assert tus.patch(tus.begin(1), 0, b"1", headers).status == 204
