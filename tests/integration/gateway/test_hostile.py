"""No input causes a 5xx, or reaches what belongs to another user."""

import hashlib
import json
import os
import shutil
import socket
import uuid
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devtools.user_pool import INTERNAL_KEY, Issuer
from tests.support.gateway import Api, Gateway, job_body, multipart, on_both_databases

QUICK = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

ROUTES_WITH_PATHS = [
    ("GET", "/files/{}"), ("GET", "/files/{}/download"), ("HEAD", "/files/{}/download"),
    ("GET", "/files/{}/url"), ("POST", "/files/{}"), ("POST", "/files/{}/"),
    ("POST", "/files/data/{}/"), ("POST", "/files/data/{}/url"), ("POST", "/files/{}/x/upload"),
    ("DELETE", "/files/{}"), ("DELETE", "/files/data/{}"), ("GET", "/jobs/{}"),
    ("DELETE", "/jobs/{}"), ("GET", "/{}"), ("GET", "/docs/{}"),
]  # fmt: skip

VICTIM = "victim"

nasty = st.one_of(
    st.binary(max_size=24),
    st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(
        st.sampled_from(
            [b"..", b".", b"/", b"//", b"%2e", b"%2f", b"%00", b"data", b"victim", b"config",
             b"\\", b"\0", b"\xff", b"~", b"upload", b"url", b"download", b"%c0%ae", b" ", b"*"]
        ),
        max_size=8,
    ).map(b"".join),
)  # fmt: skip


@pytest.fixture(autouse=True)
def few_trees(gateway: Gateway) -> None:
    """No trees of earlier tests: every example walks through all that there are."""
    for tree in gateway.root.glob("[!.]*"):
        shutil.rmtree(tree)


@pytest.fixture
def victim(gateway: Gateway, issuer: Issuer) -> Api:
    """A user whose files the others must not reach."""
    api = Api(gateway, VICTIM, issuer.token(VICTIM))
    assert api.get("/files/").status == 200
    api.plant("data/secret.txt", b"secret words")
    api.plant("config/deep/er/secret.txt", b"more secret words")
    return api


def snapshot(root: Path) -> dict[str, str]:
    """Every file of a tree with its digest, every directory."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "directory"
        for path in sorted(root.rglob("*"))
    }


def elsewhere(victim: Api, own: str) -> dict[str, object]:
    """The victim's tree byte by byte, and the state of all else outside of the tree `own`: other
    users' files and directories, and what lies beside the trees."""
    root = victim.gateway.root
    found: dict[str, object] = {"victim": snapshot(victim.tree)}
    found["beside"] = [name for name in os.listdir(root.parent) if "opencloud.db" not in name]
    for folder, _, names in os.walk(root):
        place = Path(folder).relative_to(root)
        if place.parts[:1] in {(own,), (".opencloud-staging",)}:
            continue
        # a directory's time counts below the top alone: other tests add users
        for name in names:
            facts = os.lstat(f"{folder}/{name}")
            found[f"{place}/{name}"] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if place.parts:
            found[str(place)] = os.stat(folder).st_mtime_ns
    return found


def assert_harmless(reply, method: str = "GET") -> None:
    assert reply.status < 500, reply
    if reply.status >= 400 and method != "HEAD":
        assert reply.headers["content-type"] == "application/json"
        assert reply.detail
        assert b"<" not in reply.body
    assert b"secret words" not in reply.body


@pytest.mark.parametrize(("method", "route"), ROUTES_WITH_PATHS, ids=str)
@given(raw=nasty, escaped=st.booleans())
@example(raw=b"../victim/data/secret.txt", escaped=True)
@example(raw=b"../victim/data/secret.txt", escaped=False)
@example(raw=b"%2e%2e/victim/data/secret.txt", escaped=True)
@example(raw=b"data/../../victim/", escaped=False)
@example(raw=b"/../victim/data", escaped=False)
@QUICK
def test_paths_of_any_bytes(
    api: Api, victim: Api, method: str, route: str, raw: bytes, escaped: bool
) -> None:
    before = elsewhere(victim, api.user)
    shown = quote_from_bytes(raw, safe="" if escaped else "/%~")
    head, _, tail = route.partition("{}")
    body, kind = multipart("f", b"x")
    request = (
        f"{method} {head}{shown}{tail} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {api.token}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    assert_harmless(api.gateway.raw(request.encode() + body), method)
    assert elsewhere(victim, api.user) == before


@given(raw=nasty)
@example(raw=b"../victim/data/secret.txt")
@example(raw=b"../../victim/data/secret.txt")
@example(raw=b'"\r\nX-Evil: 1')
@QUICK
def test_file_names_of_any_bytes(api: Api, victim: Api, raw: bytes) -> None:
    before = elsewhere(victim, api.user)
    assert_harmless(api.upload("data/x", raw))
    encoded = quote_from_bytes(raw, safe="").encode()  # RFC 5987
    shown = b"form-data; name=\"file\"; filename*=UTF-8''" + encoded
    body, kind = multipart("", b"content", disposition=shown)
    form = {"Content-Type": kind}
    assert_harmless(api.post("/files/data/x/upload", body=body, headers=form))
    assert elsewhere(victim, api.user) == before


@given(text=st.text(max_size=30))
@example(text="../victim/data/stolen")
@example(text="../../victim/data/stolen")
@example(text="data/../../victim/data/stolen")
@example(text="/etc/passwd")
@QUICK
def test_texts_of_any_kind_in_json(api: Api, victim: Api, text: str) -> None:
    before = elsewhere(victim, api.user)
    api.plant("data/mine")
    attributes = {"files_down": {"config_id": text, "data_ids": [text], "artifact_ids": [text]}}
    for reply in (
        api.put("/files/data/mine", json={"path": text}),
        api.put("/files/data/mine", json={"path": f"data/{text}"}),
        api.submit(attributes=attributes),
        api.submit(job_name=text, attributes={"files_down": {}, "env_vars": {text: text}}),
        api.submit(application=dict.fromkeys(["application", "version", "entrypoint"], text)),
    ):
        assert_harmless(reply)
        if reply.status == 201:  # the name is a directory's; all below it goes with the job
            api.plant(f"output/{reply.json()['job_name']}/result")
            assert api.delete(f"/jobs/{reply.json()['id']}").status == 204
    assert elsewhere(victim, api.user) == before


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
KEYS = ["job_name", "environment", "priority", "application", "attributes", "hardware"]


@on_both_databases
@given(key=st.sampled_from(KEYS), inner=st.booleans(), value=anything)
@example(key="hardware", inner=True, value=10**400)
@example(key="priority", inner=False, value=float("inf"))
@example(key="attributes", inner=True, value="\ud800")
@QUICK
def test_values_of_any_kind_in_a_submission(api: Api, key: str, inner: bool, value) -> None:
    body = job_body(job_name=uuid.uuid4().hex, attributes={"files_down": {}})
    if inner and isinstance(body[key], dict):
        body[key] = {**body[key], **dict.fromkeys(body[key], value)}
    else:
        body[key] = value
    assert_harmless(api.post("/jobs", body=json.dumps(body).encode()))


@on_both_databases
@given(job_id=anything, status=anything, details=anything)
@example(job_id=10**400, status="running", details="\ud800")
@example(job_id=-(2**63), status="running", details="\0")
@QUICK
def test_values_of_any_kind_in_an_update(anybody: Api, job_id, status, details) -> None:
    body = json.dumps({"job_id": job_id, "status": status, "runtime_details": details}).encode()
    assert_harmless(anybody.put("/_job_status", body=body, headers={"x-api-key": INTERNAL_KEY}))


@given(query=nasty)
@QUICK
def test_queries_of_any_bytes(api: Api, query: bytes) -> None:
    shown = quote_from_bytes(query, safe="=&%")
    for target in ("/jobs?limit=", "/jobs?offset=", "/files/?recursive=", "/files/?after=", "/?"):
        assert_harmless(api.get(f"{target}{shown}"))


@given(head=st.binary(max_size=60))
@QUICK
def test_requests_of_any_bytes(gateway: Gateway, head: bytes) -> None:
    """Any bytes before the end of the head have an answer, if one, below 500."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(head + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n\r\n")
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.") is bool(answer)
    assert not answer.startswith((b"HTTP/1.1 5", b"HTTP/1.0 5"))


HEADERS = [
    "Authorization", "Cookie", "Range", "If-None-Match", "If-Match", "If-Range",
    "If-Modified-Since", "Origin", "X-Request-ID", "X-Forwarded-Host", "X-Forwarded-Proto",
    "Content-Encoding", "Access-Control-Request-Method",
]  # fmt: skip
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(values=st.dictionaries(st.sampled_from(HEADERS), printable, max_size=4))
@QUICK
def test_headers_of_any_value(api: Api, values: dict[str, str]) -> None:
    api.plant("data/f.txt")
    for target in ("/files/data/f.txt/download", "/files/data/f.txt/url", "/user"):
        assert_harmless(api.get(target, headers=values))
    assert_harmless(api.send("OPTIONS", "/jobs", headers=values))


@pytest.mark.parametrize("planted", ["data/link", "data/folder"])
def test_links_lead_nowhere(api: Api, victim: Api, planted: str) -> None:
    before = elsewhere(victim, api.user)
    (api.tree / "data/link").symlink_to(victim.tree / "data/secret.txt")
    (api.tree / "data/folder").symlink_to(victim.tree / "data")
    for reply in (
        api.get(f"/files/{planted}/download"),
        api.get(f"/files/{planted}/secret.txt/download"),
        api.get(f"/files/{planted}/"),
        api.submit(attributes={"files_down": {"data_ids": [planted.removeprefix("data/")]}}),
        api.put(f"/files/{planted}", json={"path": "data/stolen"}),
        api.upload(planted, "secret.txt", b"overwritten"),
        api.post(f"/files/{planted}/x/"),
    ):
        assert 400 <= reply.status < 500, reply
    api.upload("data/", "link", b"mine now")
    api.delete(f"/files/{planted}/")
    api.delete("/files/data/")
    assert elsewhere(victim, api.user) == before
