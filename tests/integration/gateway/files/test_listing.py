"""Listings, directories, deletion, `/url`; and all the ways in which clients compose URLs."""

from urllib.parse import quote

import pytest
import requests

from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import TOP, Api, Issuer, Reply, job_body, on_both_storages

NAME = "ü 'q' 漢;%.tiff"
CONTENT = b"hello world"


@pytest.fixture
def owner(api: Api) -> Api:
    """A user with a file."""
    assert api.upload("data/x", "f.csv", CONTENT).status == 201
    return api


@on_both_storages
def test_a_tree_is_listed_by_levels_and_whole(owner: Api) -> None:
    owner.upload("data/x/deep//er", "g.txt", b"")
    assert owner.post("/files/data/hollow/").status == 201
    shown = [{"path": path, "type": "directory", "size": ""} for path in TOP]
    assert owner.get("/files/").json() == shown
    assert owner.get("/files/data/x").json() == [
        {"path": "data/x/deep/", "type": "directory", "size": ""},
        {"path": "data/x/f.csv", "type": "file", "size": "11 Bytes"},
    ]
    everything = [
        "artifact/", "config/", "data/", "data/hollow/", "data/x/", "data/x/deep/",
        "data/x/deep/er/", "data/x/deep/er/g.txt", "data/x/f.csv", "log/", "output/",
    ]  # fmt: skip
    assert owner.paths("", "?recursive=YES") == everything
    files = [path for path in everything if not path.endswith("/")]
    assert owner.paths("", "?recursive=1&show_dirs=F") == files
    assert owner.paths("data/x", "?show_dirs=off") == ["data/x/f.csv"]


@on_both_storages
@pytest.mark.parametrize(
    "path", ["data/none", "data/none/", "none", "none/x", "data/x/f.csv", "data/x/f.csv/"]
)
def test_only_directories_can_be_listed(owner: Api, path: str) -> None:
    reply = owner.get(f"/files/{path}")
    assert (reply.status, reply.json()) == (404, {"detail": "Not Found"})


@on_both_storages
@pytest.mark.parametrize("query", ["", "&show_dirs=false", "&details=true"])
@pytest.mark.parametrize("limit", [2, 9, 100])
def test_pages_together_are_the_whole(owner: Api, query: str, limit: int) -> None:
    for path in ("data/a", "data/x/a", "data/x-", quote("config/ü ü")):
        owner.upload(path, "f.txt")
    whole = owner.get(f"/files/?recursive=true{query}").json()
    pages = []
    following = f"/files/?recursive=true{query}&limit={limit}"
    while following:
        reply = owner.get(following)
        pages.append(reply.json())
        link = reply.headers.get("link", "").partition("<")[2].partition(">")[0]
        following = link.removeprefix(owner.gateway.base)
    assert [entry for page in pages for entry in page] == whole
    assert {len(page) for page in pages[:-1]} <= {limit}
    assert pages[-1]


@pytest.mark.parametrize(
    "path", ["", "/", "//", "///", "/%2F", "//?show_dirs=True", "?show_dirs=True&recursive=False"]
)
def test_the_root_in_every_spelling(api: Api, path: str) -> None:
    assert [entry["path"] for entry in api.get(f"/files{path}").json()] == TOP


@pytest.mark.parametrize(
    "path", ["data/x", "data/x/", "data//x", "/data/x//", "data%2Fx", "data/%78", "/data///x///"]
)
def test_empty_segments_are_dropped(api: Api, path: str) -> None:
    api.plant("data/x/f.csv", b"n" * 19)
    api.plant("data/x/deep/g.csv")
    assert api.get(f"/files/{path}").json() == [
        {"path": "data/x/deep/", "type": "directory", "size": ""},
        {"path": "data/x/f.csv", "type": "file", "size": "19 Bytes"},
    ]


def test_details_are_extra(api: Api) -> None:
    for number in range(3):
        api.plant(f"data/p/f{number}", b"x" * number)
    entry = api.get("/files/data/p?details=true").json()[1]
    assert set(entry) == {"path", "type", "size", "bytes", "modified", "etag"}
    assert (entry["path"], entry["bytes"], entry["size"]) == ("data/p/f1", 1, "1 Byte")
    assert api.paths("data/p", "?after=data/p/f1") == ["data/p/f2"]


def test_a_directory_is_made_with_its_parents_and_again(api: Api) -> None:
    for _ in range(2):
        reply = api.post("/files/data/x/y//")
        assert (reply.status, reply.json()) == (201, None)
    assert (api.tree / "data/x/y").is_dir()


@pytest.mark.parametrize("path", ["data//", "data///", "config//", "artifact//", "data%2Fx/"])
def test_the_types_own_directory_can_be_posted_to(api: Api, path: str) -> None:
    assert api.post(f"/files/{path}").status == 201


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "//", "/data", "/data/", "/name/", "/data/x", "/data/x/y", "/data/upload",
        "/data/url", "//url", "//upload", "//data/x/", "/data/x/other", "/data/x/Upload",
    ],
)  # fmt: skip
def test_posting_needs_a_type_a_path_and_an_ending(api: Api, path: str) -> None:
    reply = api.post(f"/files{path}")
    assert (reply.status, reply.json()) == (405, {"detail": "Method Not Allowed"})


@pytest.mark.parametrize("kind", ["output", "log", "other", "DATA", "%00", "data%20"])
@pytest.mark.parametrize("ending", ["", "url"])
def test_only_three_types_can_be_written_to(api: Api, kind: str, ending: str) -> None:
    reply = api.post(f"/files/{kind}/x/{ending}")
    assert reply.faults() == {(("path", "f_type"), "enum")}
    for allowed in ("config", "data", "artifact"):
        assert allowed in reply.detail[0]["msg"]


@on_both_storages
@pytest.mark.parametrize("path", ["data/x/f.csv", "data/x/f.csv/deep"])
def test_a_file_where_a_directory_is_needed_is_a_conflict(owner: Api, path: str) -> None:
    assert owner.upload(path, "g").status == 409
    for ending in ("", "url"):
        assert owner.post(f"/files/{path}/{ending}").status == 409
    assert owner.paths("data", "?recursive=true") == ["data/x/", "data/x/f.csv"]


DOTS = [
    "..", "../", ".", "%2e%2e", "%2E%2e/", "data/..", "data/../x", "data/./x", "data/.%2e/x",
    "%252e%252e", "data/%25252e%25252e/x", "data/x/..", "..%2Fother", "data%2F..%2F..",
]  # fmt: skip


@pytest.mark.parametrize("path", DOTS)
def test_dots_are_refused_and_never_resolved(api: Api, path: str) -> None:
    api.plant("data/x/f")
    for ending in ("", "/download", "/url"):
        reply = api.get(f"/files/{path}{ending}")
        assert (reply.status, reply.json()) == (404, {"detail": "Not Found"})
    assert api.send("HEAD", f"/files/{path}/download").status == 404
    assert api.delete(f"/files/{path}").status == 422
    assert api.put(f"/files/{path}", json={"path": "data/new"}).status == 422
    for ending in ("/", "/url", "/upload"):
        assert api.post(f"/files/data/{path}{ending}").status == 422
    assert (api.tree / "data/x/f").exists()


@pytest.mark.parametrize("path", ["a%00b", "%ff", "%ed%a0%80", "n" * 256, "a/" * 600, "%0a", "%7f"])
def test_what_no_path_can_hold_is_refused_alike(api: Api, path: str) -> None:
    assert api.get(f"/files/data/{path}").status == 404
    assert api.delete(f"/files/data/{path}").faults() == {(("path", "file_path"), "value_error")}
    assert api.post(f"/files/data/{path}/").faults() == {(("path", "base_path"), "value_error")}


@pytest.mark.parametrize("path", ["data", "data/", "data//", "/data", "", "/", "//"])
def test_root_and_predefined_directories_are_emptied_in_every_spelling(api: Api, path: str) -> None:
    for planted in ("data/x/f", "config/kept", "stray"):
        api.plant(planted)
    assert api.delete(f"/files/{path}").status == 204
    left = ["artifact/", "config/", "config/kept", *TOP[2:], "stray"] if "data" in path else TOP
    assert api.paths("", "?recursive=true") == left


@on_both_storages
def test_deletions_always_succeed_and_the_predefined_directories_stay(owner: Api) -> None:
    owner.upload("data/x/deep", "g")
    owner.upload("config/", "c")
    for path in ("data/x/f.csv", "data/none", "data/none/", "nowhere/"):
        reply = owner.delete(f"/files/{path}")
        assert (reply.status, reply.body) == (204, b"")
    assert owner.paths("data", "?recursive=true") == [
        "data/x/", "data/x/deep/", "data/x/deep/g",
    ]  # fmt: skip
    assert owner.delete("/files/data/").status == 204
    assert owner.paths("", "?recursive=true") == ["artifact/", "config/", "config/c", *TOP[2:]]
    assert owner.delete("/files/").status == 204
    assert owner.paths("", "?recursive=true") == TOP


def test_users_see_only_their_own(api: Api, other: Api) -> None:
    api.plant("data/x/f", b"mine")
    assert other.get("/files/data/x/").status == 404
    assert other.get("/files/data/x/f/download").status == 404
    assert other.delete("/files/data/x/").status == 204
    assert other.put("/files/data/x/f", json={"path": "data/g"}).status == 404
    assert api.get("/files/data/x/f/download").body == b"mine"


@on_both_storages
def test_a_job_takes_its_inputs_from_there(owner: Api) -> None:
    def submit(*ids: str) -> Reply:
        files = {"data_ids": [*ids]}
        return owner.post("/jobs", json=job_body(attributes={"files_down": files}))

    assert submit("x/", "x/f.csv").status == 201
    assert submit("none").status == 400


# -- the two-step protocol -----------------------------------------------------------------------


@on_both_storages
@pytest.mark.parametrize("name", ["plain.txt", NAME])
@pytest.mark.parametrize("glue", ["/", "//"])
def test_clients_send_both_steps_unchanged(api: Api, name: str, glue: str) -> None:
    step = api.post(f"/files/data/x{glue}url")
    assert step.status == 201
    assert set(step.json()) == {"method", "url", "headers", "data"}
    sent = requests.request(**step.json(), files={"file": (name, CONTENT)}, timeout=30)
    assert sent.status_code in {201, 204}
    assert api.paths("data/x") == [f"data/x/{name}"]
    own = api.get(f"/files/data/x/{quote(name)}/download")
    step = api.get(f"/files/data/x/{quote(name)}/url")
    got = requests.request(**step.json(), timeout=30)
    assert (got.status_code, got.content) == (200, own.body) == (200, CONTENT)
    for header in ("Content-Disposition", "Content-Type", "Cache-Control", "Content-Length"):
        assert got.headers[header] == own.headers[header.lower()], header


def test_on_local_storage_the_steps_are_requests_to_this_api(owner: Api) -> None:
    assert owner.post("/files/data/x//url").json() == {
        "method": "post",
        "url": f"{owner.gateway.base}/files/data/x//upload",
        "headers": {"authorization": f"Bearer {owner.token}"},
        "data": {},
    }
    assert owner.get("/files/data/x/f.csv/url").json()["method"] == "get"


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("data/x/f/url", "data/x/f/download"),
        ("data/x/f/url?x=/url&y", "data/x/f/download"),
        ("/data//x//f//url", "/data//x//f//download"),
        ("data/x/%66/url", "data/x/%66/download"),
        ("data/x/url/url", "data/x/url/download"),
        ("data/x/s%20p%23%3F%25.txt/url", "data/x/s%20p%23%3F%25.txt/download"),
        ("data/x/f/ur%6C", "data/x/f/download"),
        ("data/x//url", "data/x//download"),
    ],
)
def test_the_url_is_the_requests_own_with_its_end_replaced(
    api: Api, sent: str, answered: str
) -> None:
    for name in ("f", "url", "s p#?%.txt"):
        api.plant(f"data/x/{name}", b"content")
    asked = api.get(f"/files/{sent}").json()
    assert asked["url"] == f"{api.gateway.base}/files/{answered}"
    assert api.follow(asked).status == 200


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ({"Host": "api.example:1234"}, "http://api.example:1234"),
        ({"Host": "a", "X-Forwarded-Proto": "https"}, "https://a"),
        ({"Host": "a", "X-Forwarded-Proto": "HTTPS, http"}, "https://a"),
        ({"Host": "a", "X-Forwarded-Host": "front.example, b"}, "http://front.example"),
        ({"Host": "a", "X-Forwarded-Host": "<b>", "X-Forwarded-Proto": "ftp"}, "http://a"),
        ({"Host": "a", "X-Forwarded-Host": "", "X-Forwarded-Proto": ""}, "http://a"),
    ],
    ids=str,
)
def test_the_url_has_the_host_that_the_client_used(api: Api, headers: dict, origin: str) -> None:
    asked = api.post("/files/data/x/url", headers=headers).json()
    assert asked["url"] == f"{origin}/files/data/x/upload"


def test_forwarded_headers_count_from_trusted_proxies_only(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    api = Api(start_gateway(TRUSTED_PROXIES="10.0.0.0/8"), token=issuer.token("somebody"))
    headers = {"Host": "a", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil"}
    assert api.post("/files/data/x/url", headers=headers).json()["url"].startswith("http://a/")


def test_the_authorization_is_answered_exactly_as_sent(api: Api) -> None:
    sent = f"bEaReR   {api.token}"
    asked = api.post("/files/data/x/url", headers={"Authorization": sent}).json()
    assert asked["headers"] == {"authorization": sent}


def test_callers_by_cookie_get_no_header(api: Api) -> None:
    by_cookie = Api(api.gateway, headers={"Cookie": f'Authorization="Bearer {api.token}"'})
    api.plant("data/f")
    assert by_cookie.get("/files/data/f/url").json()["headers"] == {}
