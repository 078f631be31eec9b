"""Listings, directories, deletion; and every way in which clients glue URLs."""

import os

import pytest

from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import TOP, Api, Issuer


def test_the_root_holds_the_predefined_directories(api: Api) -> None:
    expected = [{"path": path, "type": "directory", "size": ""} for path in TOP]
    assert api.get("/files/").json() == expected


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


def test_listings_are_sorted_by_path_and_can_be_narrowed(api: Api) -> None:
    for path in ("data/b", "data/a/z", "data/a/b/c", "data/a.txt"):
        api.plant(path)
    assert api.paths("data/") == ["data/a.txt", "data/a/", "data/b"]
    assert api.paths("data/", "?show_dirs=off") == ["data/a.txt", "data/b"]
    everything = ["data/a.txt", "data/a/", "data/a/b/", "data/a/b/c", "data/a/z", "data/b"]
    assert api.paths("data/", "?recursive=YES") == everything
    assert api.paths("data/", "?recursive=1&show_dirs=F") == [
        path for path in everything if not path.endswith("/")
    ]


@pytest.mark.parametrize(
    "path", ["data/none", "data/none/", "none", "none/x", "data/file", "data/file/", "data/file/x"]
)
def test_only_directories_can_be_listed(api: Api, path: str) -> None:
    api.plant("data/file")
    reply = api.get(f"/files/{path}")
    assert (reply.status, reply.json()) == (404, {"detail": "Not Found"})


def test_details_and_pages_are_extra(api: Api) -> None:
    for number in range(5):
        api.plant(f"data/p/f{number}", b"x" * number)
    first = api.get("/files/data/p?limit=2&details=true")
    entry = first.json()[1]
    assert set(entry) == {"path", "type", "size", "bytes", "modified", "etag"}
    assert (entry["path"], entry["bytes"], entry["size"]) == ("data/p/f1", 1, "1 Byte")
    following = first.headers["link"].partition("<")[2].partition(">")[0]
    second = api.get(following.removeprefix(api.gateway.base))
    assert [item["path"] for item in second.json()] == ["data/p/f2", "data/p/f3"]
    assert api.paths("data/p", "?after=data/p/f3") == ["data/p/f4"]


def test_names_of_any_bytes_on_disk_do_no_harm(api: Api) -> None:
    directory = os.fsencode(api.plant("data/odd/plain").parent)
    with open(directory + b"/\xff\xfe.bin", "wb") as file:
        file.write(b"x")
    os.mkdir(directory + b"/d\xff")
    os.symlink("/etc/passwd", directory + b"/link")
    assert api.paths("data/odd/") == [
        "data/odd/d\ufffd/",
        "data/odd/plain",
        "data/odd/\ufffd\ufffd.bin",
    ]


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


@pytest.mark.parametrize(
    "path", ["data/plain/", "data/plain/deep/", "data/plain/url", "data/plain/x/url"]
)
def test_a_file_in_the_way_of_a_directory_is_a_conflict(api: Api, path: str) -> None:
    api.plant("data/plain")
    assert api.post(f"/files/{path}").status == 409


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


def test_a_file_and_a_directory_are_deleted(api: Api) -> None:
    api.plant("data/x/f")
    api.plant("data/y/deep/g")
    for path in ("data/x/f", "data/y/", "data/none", "data/none/", "nowhere", "nowhere/x/"):
        reply = api.delete(f"/files/{path}")
        assert (reply.status, reply.body) == (204, b"")
    assert api.paths("", "?recursive=true") == sorted([*TOP, "data/x/"])


@pytest.mark.parametrize("path", ["data", "data/", "data//", "/data"])
def test_a_predefined_directory_is_emptied_and_stays(api: Api, path: str) -> None:
    api.plant("data/x/f")
    api.plant("config/kept")
    assert api.delete(f"/files/{path}").status == 204
    assert api.paths("data/") == []
    assert api.paths("config/") == ["config/kept"]


@pytest.mark.parametrize("path", ["", "/", "//"])
def test_the_root_is_emptied_and_stays(api: Api, path: str) -> None:
    api.plant("data/x/f")
    api.plant("stray")
    assert api.delete(f"/files{path}").status == 204
    assert api.paths("", "?recursive=true") == TOP


def test_a_deleted_predefined_directory_comes_back(api: Api) -> None:
    (api.tree / "log").rmdir()
    assert api.paths("log/") == []
    assert api.paths() == TOP


def test_users_see_only_their_own(api: Api, other: Api) -> None:
    api.plant("data/x/f", b"mine")
    assert other.get("/files/data/x/").status == 404
    assert other.get("/files/data/x/f/download").status == 404
    assert other.delete("/files/data/x/").status == 204
    assert other.put("/files/data/x/f", json={"path": "data/g"}).status == 404
    assert api.get("/files/data/x/f/download").body == b"mine"


# -- the two-step protocol -----------------------------------------------------------------------


@pytest.mark.parametrize("glue", ["/", "//"])
def test_the_two_steps_work_word_for_word(api: Api, glue: str) -> None:
    asked = api.post(f"/files/data/x{glue}url")
    assert asked.status == 201
    assert asked.json() == {
        "method": "post",
        "url": f"{api.gateway.base}/files/data/x{glue}upload",
        "headers": {"authorization": f"Bearer {api.token}"},
        "data": {},
    }
    assert api.follow(asked.json(), ("up.txt", b"two steps")).status == 201
    asked = api.get("/files/data/x/up.txt/url")
    assert asked.json()["method"] == "get"
    assert api.follow(asked.json()).body == b"two steps"


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


@pytest.mark.parametrize("path", ["data/none", "data/x/none", "none", "url"])
def test_nothing_has_no_url(api: Api, path: str) -> None:
    reply = api.get(f"/files/{path}/url")
    assert (reply.status, reply.json()) == (404, {"detail": "Not Found"})
