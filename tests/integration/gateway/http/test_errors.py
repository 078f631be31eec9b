"""Error responses: shapes, kinds, and no markup."""

import contextlib
import re
import socket
import time

import pytest

from devtools.user_pool import INTERNAL_KEY
from tests.support.gateway import Api, Gateway, multipart

KEY = {"x-api-key": INTERNAL_KEY}
JSON = {"Content-Type": "application/json"}
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "missing"), (b" ", "json_invalid"), (b"{", "json_invalid"),
        (b"{} {}", "json_invalid"),
        (b"\xff", "json_invalid"), (b"NaN", "json_invalid"), (b"[" * 10_000, "json_invalid"),
        (b"[" * 10_000 + b"]" * 10_000, "json_invalid"), (b'{"a":' * 10_000, "json_invalid"),
        (b'"\\ud800"', "json_invalid"), (b"1e999", "json_invalid"), (b"[]", "model_type"),
        (b"null", "model_type"), (b'"x"', "model_type"), (b"3", "model_type"),
    ],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_a_body_other_than_an_object_is_named(api: Api, body: bytes, kind: str) -> None:
    for reply in (
        api.post("/jobs", body=body, headers=JSON),
        api.put("/files/data/x", body=body, headers=JSON),
    ):
        assert reply.faults() == {(("body",), kind)}
    if body != b'"\\ud800"':  # a status update with half a character is taken, see there
        reply = api.put("/_job_status", body=body, headers={**JSON, **KEY})
        assert reply.faults() == {(("body",), kind)}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_body_may_come_in_any_unicode_encoding(api: Api, encoding: str) -> None:
    reply = api.put("/files/data/x", body='{"path": "data/ü"}'.encode(encoding), headers=JSON)
    assert reply.status == 404


def test_the_content_type_does_not_matter(api: Api) -> None:
    reply = api.put("/files/data/none", body=b'{"path": "data/x"}', headers={"Content-Type": "x/y"})
    assert reply.status == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "faults"),
    [
        ("PUT", "/_job_status", {"status": "sleeping"}, {
            ("header", "x-api-key"): "missing",
            ("body", "job_id"): "missing",
            ("body", "status"): "enum",
        }),
        ("PUT", "/files/data/../x", {"path": 3}, {
            ("path", "file_path"): "value_error",
            ("body", "path"): "string_type",
        }),
        ("POST", "/files/output/../upload", ..., {
            ("path", "f_type"): "enum",
            ("path", "base_path"): "value_error",
            ("body", "file"): "missing",
        }),
        ("GET", "/files/?show_dirs=maybe&recursive=&limit=x", ..., {
            ("query", "show_dirs"): "bool_parsing",
            ("query", "recursive"): "bool_parsing",
            ("query", "limit"): "int_parsing",
        }),
    ],
)  # fmt: skip
def test_all_faults_are_reported_together(api: Api, method, path, body, faults) -> None:
    assert api.send(method, path, json=body).faults() == set(faults.items())


def test_a_missing_field_is_named_in_the_contracts_words(api: Api) -> None:
    fault = {"loc": ["body", "path"], "msg": "Field required", "type": "missing"}
    assert api.put("/files/data/x", json={}).detail == [fault]


def test_no_markup_from_a_request_gets_into_an_error(api: Api) -> None:
    api.plant("data/f.txt")
    api.plant(f"data/{MARKUP}")
    job = {"job_name": MARKUP + "/", "attributes": {"files_down": {"data_ids": [MARKUP + "/.."]}}}
    escaped = MARKUP.replace(" ", "%20")
    replies = [
        api.post("/jobs", json=job),
        api.submit(application={"application": MARKUP, "version": "v1", "entrypoint": "train"}),
        api.submit(attributes={"files_down": {}, "env_vars": {MARKUP: "x"}}),
        api.submit(attributes={"files_down": {}, "env_vars": {MARKUP: 3}}),
        api.submit(attributes={"files_down": {"config_id": MARKUP}}),
        api.submit(environment=MARKUP, priority=MARKUP),
        api.put("/files/data/f.txt", json={"path": MARKUP}),
        api.put("/files/data/f.txt", json={"path": f"data/{MARKUP}/x"}),
        api.upload(f"data/{MARKUP.replace(' ', '%20')}", "x"),
        api.upload("data/x", MARKUP + "\x01"),
        api.delete("/files/data/../" + escaped),
        api.get("/jobs/" + escaped),
        api.get("/jobs?limit=" + escaped),
        api.get("/" + escaped),
        Api(api.gateway).put("/_job_status", json={"job_id": MARKUP, "status": MARKUP}),
    ]
    for reply in replies:
        assert 400 <= reply.status < 500, reply
        assert b"<" not in reply.body, reply
        assert b">" not in reply.body, reply
        assert reply.headers["content-type"] == "application/json"
        assert reply.detail


def test_markup_is_shown_escaped(api: Api) -> None:
    reply = api.submit(application={"application": "<b>", "version": "v1", "entrypoint": "train"})
    assert r"'\x3cb\x3e'" in reply.detail[0]["msg"]
    reply = api.submit(attributes={"files_down": {}, "env_vars": {"<b>": 3}})
    assert reply.detail[0]["loc"] == ["body", "attributes", "env_vars", r"\x3cb\x3e"]


def test_our_own_rules_name_the_value_and_the_allowed_ones(api: Api) -> None:
    api.plant("data/f.txt")
    for reply, given, allowed in (
        (api.submit(priority=9), "9", "0 to 5"),
        (api.submit(job_name="a/b"), "a/b", "slash"),
        (api.submit(attributes={"files_down": {}, "env_vars": {"Z": "x"}}), "Z", "KEY, OTHER_KEY"),
        (api.put("/files/data/f.txt", json={"path": "elsewhere/x"}), "elsewhere/x", "artifact, c"),
        (api.upload("data/x", ".."), "..", "must not"),
    ):
        (fault,) = reply.detail
        assert fault["type"] == "value_error"
        assert given in fault["msg"]
        assert allowed in fault["msg"]


# -- errors before any handler ----------------------------------------------------------


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G<T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n<bad header>\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: 1\r\n" * 300 + b"\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xc3\xbc HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[bad/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"0" * 5_000 + b"\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /files/x HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx",
    ],
    ids=lambda raw: raw[:30].decode("latin-1"),
)
def test_a_request_that_cannot_be_parsed_is_answered_in_json(
    gateway: Gateway, request_bytes: bytes
) -> None:
    reply = gateway.raw(request_bytes)
    assert 400 <= reply.status < 500
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json()) == ["detail"]
    assert reply.detail
    assert b"<" not in reply.body


HEAD = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n"
LINE = b"X: " + b"x" * 1_000 + b"\r\n"


@pytest.mark.parametrize("step", [1_000, 65_537, 10**6])
@pytest.mark.parametrize("first", [b"", HEAD + b"\r\n"], ids=["first", "second"])
def test_a_head_has_a_limit_as_a_whole(gateway: Gateway, step: int, first: bytes) -> None:
    """It is answered although it does not end."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        if first:
            connection.sendall(first)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 404 ")
        head = HEAD + LINE * 70
        with contextlib.suppress(ConnectionError):  # what comes after the limit is not read
            for start in range(0, len(head), step):
                connection.sendall(head[start : start + step])
        answer = connection.recv(65_536)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""  # it is closed
    assert answer.startswith(b"HTTP/1.0 431 ")
    assert b"\r\nContent-Type: application/json\r\n" in answer
    assert answer.endswith(b'{"detail":"A request\'s head may have at most 65536 bytes"}')


@pytest.mark.parametrize("step", [1, 63, 10**6])
def test_a_long_head_within_the_limit_is_taken_however_it_arrives(
    gateway: Gateway, step: int
) -> None:
    head = HEAD + LINE * 62 + b"\r\n"
    assert 62_000 < len(head) < 65_536
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(head[:-100])
        for start in range(len(head) - 100, len(head), step):
            connection.sendall(head[start : start + step])
            time.sleep(0)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 404 ")
        connection.sendall(HEAD + b"\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 404 ")


def test_a_path_of_more_slashes_than_any_file_can_have_is_refused(api: Api) -> None:
    reply = api.get("/files/" + "/" * 5_000)
    assert (reply.status, reply.detail) == (414, "A path may have at most 4200 slashes")
    assert api.get("/files/" + "/" * 4_000).status == 200
    assert api.get("/jobs?x=" + "/" * 5_000).status == 200


def test_a_body_behind_a_queued_request_does_not_count_as_a_head(
    api: Api, gateway: Gateway
) -> None:
    authorization = f"Host: x\r\nAuthorization: Bearer {api.token}\r\n"
    form, kind = multipart("f", b"x" * 1_000_000)
    head = (
        f"GET /user HTTP/1.1\r\n{authorization}\r\n"
        f"POST /files/data/x/upload HTTP/1.1\r\n{authorization}"
        f"Content-Type: {kind}\r\nContent-Length: {len(form)}\r\nConnection: close\r\n\r\n"
    )
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            connection.sendall(head.encode() + form)
            answers = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert re.findall(rb"HTTP/1\.. (\d+)", answers) == [b"200", b"201"]


def test_a_request_that_cannot_be_parsed_is_not_logged(
    gateway: Gateway, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    secret = "hunter2-hunter2"
    head = f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}{'a' * 40_000}\r\n\r\n"
    assert gateway.raw(head.encode()).status == 400
    written = capfd.readouterr()
    assert secret not in written.out + written.err + caplog.text


def test_an_unknown_expectation_is_answered_in_json(anybody: Api) -> None:
    reply = anybody.get("/", headers={"Expect": "miracles"})
    assert (reply.status, reply.json()) == (417, {"detail": "Expectation Failed"})


def test_an_expectation_that_is_no_text_is_an_invalid_request(gateway: Gateway) -> None:
    reply = gateway.raw(b"GET / HTTP/1.1\r\nHost: x\r\nExpect: \xe9\r\n\r\n")
    assert reply.status == 400


HEADERS = (
    *("Accept", "Access-Control-Request-Headers", "Access-Control-Request-Method", "Authorization"),
    *("Content-Digest", "Content-Type", "Cookie", "Forwarded", "Host", "Idempotency-Key"),
    *("If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "Last-Event-ID", "Origin"),
    *("Range", "Referer", "Repr-Digest", "Sec-Fetch-Site", "Tus-Resumable", "Upload-Checksum"),
    *("Upload-Length", "Upload-Metadata", "Upload-Offset", "Want-Repr-Digest", "X-Api-Key"),
    *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Http-Method-Override"),
    *("X-Request-Id", "Connection", "Transfer-Encoding", "Upgrade", "TE", "Trailer", "Via"),
)


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_no_text_is_not_our_failure(gateway: Gateway, api: Api, name: str) -> None:
    lines = {
        b"Host": b"x",
        b"Authorization": f"Bearer {api.token}".encode(),
        b"Origin": b"http://localhost:8080",
        b"Content-Length": b"0",
        name.encode(): b"a\xe9\xff\xed\xa0\x80",
    }
    head = b"".join(b"%s: %s\r\n" % line for line in lines.items())
    for request in (
        b"GET /",
        b"POST /uploads",
        b"OPTIONS /jobs",
        b"PUT /files/x",
        b"PUT /_job_status",
    ):
        assert gateway.raw(b"%s HTTP/1.1\r\n%s\r\n" % (request, head)).status < 500


def test_a_client_that_waits_for_a_100_gets_an_answer(gateway: Gateway) -> None:
    head = b"PUT /_job_status HTTP/1.1\r\nHost: x\r\nx-api-key: x\r\nExpect: 100-continue\r\n"
    reply = gateway.raw(head + b"Content-Length: 2\r\n\r\n{}")
    assert reply.status == 401


# -- sizes ---------------------------------------------------------------------------------------


def head_of(api: Api, request: str, length: str) -> bytes:
    return (
        f"{request} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
        f"x-api-key: {INTERNAL_KEY}\r\n{length}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("request_line", ["POST /jobs", "PUT /_job_status", "PUT /files/data/x"])
def test_a_gigabyte_of_json_is_refused_before_it_arrives(
    api: Api, gateway: Gateway, request_line: str
) -> None:
    head = head_of(api, request_line, "Content-Length: 1000000000")
    reply = gateway.raw(head + b"[")
    assert reply.status == 413
    assert "4194304" in reply.detail


def test_a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_long(
    api: Api, gateway: Gateway
) -> None:
    head = head_of(api, "POST /jobs", "Transfer-Encoding: chunked")
    piece = b"100000\r\n" + b"[" * 0x100000 + b"\r\n"
    assert gateway.raw(head + piece * 5).status == 413


@pytest.mark.parametrize("coding", ["gzip", "br", "IDENTITY, x-gzip", "nonsense"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/jobs"), ("PUT", "/files/data/x"), ("POST", "/files/data/x/upload"),
     ("DELETE", "/files/data/x"), ("PUT", "/_job_status")],
)  # fmt: skip
def test_a_compressed_body_is_refused_unread(
    api: Api, gateway: Gateway, method: str, path: str, coding: str
) -> None:
    """Only its head is sent, so that reading any of it would end in a time-out."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
        f"x-api-key: {INTERNAL_KEY}\r\nContent-Encoding: {coding}\r\nContent-Length: 99\r\n\r\n"
    )
    reply = gateway.raw(head.encode())
    assert reply.status == 415
    assert reply.json() == {
        "detail": "A body is taken as it is: Content-Encoding may only be identity"
    }
    assert reply.headers["accept-encoding"] == "identity"
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]


def test_content_codings_matter_after_route_and_credentials(api: Api, anybody: Api) -> None:
    packed = {"Content-Encoding": "gzip", **JSON}
    assert anybody.post("/nowhere", body=b"x", headers=packed).status == 404
    assert anybody.post("/jobs", body=b"x", headers=packed).status == 401
    assert (
        anybody.put("/_job_status", body=b"x", headers={**packed, "x-api-key": "x"}).status == 401
    )
    assert api.post("/jobs", body=b"x", headers=packed).status == 415
    assert api.post("/jobs", body=b"x", headers={**JSON, "Content-Encoding": "Identity"}).faults()
    assert api.get("/user", headers={"Content-Encoding": "gzip"}).status == 200  # has no body


def test_a_browsers_cookies_may_be_long(api: Api) -> None:
    cookies = {"Cookie": "; ".join(f"c{n}={'x' * 900}" for n in range(30))}
    assert api.get("/user", headers=cookies).status == 200
    assert api.get("/files/" + "%C3%BC" * 4_000).status == 404
