"""Targets, headers and tokens that take as much work as can be, and ways to send them."""

import base64
import gzip

import orjson

from tests.support.gateway import job_body
from tests.support.nasty.build import FORM, JSON, UPLOAD, Named, filled, line, request


def targets(token: str) -> Named:
    for name, piece in (
        ("slashes", "/"), ("names", "a/"), ("escapes", "%41"), ("escaped slashes", "%2f"),
        ("escaped percents", "%25"), ("dots", "../"), ("not UTF-8", "%ff"), ("broken", "%"),
        ("download", "download/"), ("upload", "upload/"), ("letters", "a"), ("question", "?"),
        ("colons", ":"), ("at signs", "@"), ("unicode", "%F0%9F%98%80"),
    ):  # fmt: skip
        for method, start, end in (
            ("GET", "/files/", "/download"), ("POST", "/files/data/", "/upload"),
            ("DELETE", "/jobs/", ""), ("GET", "/docs/", ""),
        ):  # fmt: skip
            for size in (16_000, 31_000):
                target = f"{method} {start}{line(piece, size=size)}{end}"
                yield f"{method} {start} {size} of {name}", request(target, token, body=b"")
    for path in ("/files/", "/jobs", "/jobs/1/events"):
        for name, piece in (
            ("keys", "a@=1&"), ("ampersands", "&"), ("semicolons", ";"), ("equals signs", "="),
            ("limits", "limit=1&"), ("digits", "9"), ("escapes", "%26"), ("plus signs", "+"),
            ("statuses", "queued,"), ("labels", "label=a@:b&"), ("status", "status=a&"),
        ):  # fmt: skip
            target = line(piece, start=f"GET {path}?", size=31_000)
            yield f"{path}? {name}", request(target, token)
    for start in ("limit=", "after=", "status=", "name=*", "cursor=", "sort=", "created_after="):
        for piece in ("9", "*", "a,", "%00"):
            target = line(piece, start=f"GET /jobs?{start}", size=31_000)
            yield f"/jobs?{start}{piece}", request(target, token)
    for name, piece in (
        ("jobs", "job=@&"), ("the same job", "job=1&"), ("labels", "label=a@:b&"),
        ("labels of colons", "label=:::::&"), ("wrong jobs", "job=x&"),
    ):  # fmt: skip
        for start in ("", "after=0&"):
            target = line(piece, start=f"GET /jobs/events?{start}", size=31_000)
            yield f"stream of {start} {name}", request(target, token)


def headers(token: str) -> Named:
    file = "GET /files/data/x/f/download"
    for field, pieces in {
        "Range: bytes=": ("0-0,", "0-,", "-1,", ",", "9" * 3_999 + "-,", "@-@,", " ", "a"),
        "If-None-Match: ": ('"@",', '"', "W/", 'W/"",', "*,"),
        "If-Match: ": ('"@",', '"', "W/"),
        "If-Range: ": ('"', "a "),
        "If-Modified-Since: ": ("1 ", ":", ", ", "(", "-", "Mon, 01 Jan 2024 00:00:00 ", "9"),
        "If-Unmodified-Since: ": ("1:", "+", "9"),
        "Cookie: ": ("a@=1;", ";", "=", "Authorization=x;", '"', " "),
        "Accept: ": ("a/b,", ";q=1", "*/*,"),
        "Accept-Encoding: ": ("gzip,", ",", ";q=0.5,"),
        "Accept-Language: ": ("de,", "a-"),
        "X-Forwarded-For: ": ("1.1.1.@,", ",", "::1,", " "),
        "X-Forwarded-Proto: ": ("https,", ","),
        "X-Forwarded-Host: ": ("a.", ","),
        "Origin: ": ("a", "http://"),
        "Access-Control-Request-Headers: ": ("a,",),
        "X-Request-ID: ": ("a", "-"),
        "Idempotency-Key: ": ("a", '"'),
        "Content-Type: ": ("a/b;", ";charset=utf-8", "application/json;", "/", "a=b;"),
        "Content-Encoding: ": ("gzip,", "identity,"),
        "Want-Repr-Digest: ": ("sha-256=1,",),
    }.items():
        for piece in pieces:
            value = line(piece, start=field)
            yield f"{field}{piece[:20]}", request(file, token, value)
            if field.startswith(("Content-", "Idem")):
                body = orjson.dumps(job_body(attributes={"files_down": {}}))
                yield f"{field}{piece}", request("POST /jobs", token, value, body=body)
                yield f"{UPLOAD} {field}{piece}", request(UPLOAD, token, value, body=body)
    for piece in ("9", "a"):
        value = line(piece, start="Last-Event-ID: ")
        yield f"last event {piece}", request("GET /jobs/events", token, value)
    few = [f"X-{number}: {'x' * 500}" for number in range(110)]
    yield "many", request("GET /", token, *few)
    yield "short", request("GET /", token, *[f"a{number}:" for number in range(5_000)])
    for name, piece in (("hosts", "a."), ("brackets", "["), ("digits", "1"), ("colons", ":")):
        host = line(piece, start="GET / HTTP/1.1\r\nConnection: close\r\nHost: ", end="\r\n\r\n")
        yield name, host.encode()


def uploads(token: str) -> Named:
    """Creations and portions of resumable uploads."""
    usual = {"Tus-Resumable": "1.0.0", "Upload-Length": "1", "Upload-Metadata": "path ZGF0YS9h"}
    long = base64.b64encode(filled(b"a/", start=b"data/", size=20_000)).decode()
    for field, lines in {
        "Upload-Metadata": (
            *(line(piece) for piece in ("a@ ,", ",", " ", "a ", "a@ YQ==,", "=", "path ,", "a@,")),
            *(f"path {text}" for text in (long, line("Ly8v"), line("Li4v"), line("gICA"))),
            f"dir {long},filename {line('YWFh', size=5_000)}",
        ),
        "Upload-Length": (line("9"), line(" ", end="1")),
        "Upload-Checksum": (line("A", start="sha256 "), line("sha1 "), line("=", start="sha1 ")),
        "X-HTTP-Method-Override": (line("A"), line(" ")),
        "Upload-Defer-Length": (line("1"),),
    }.items():
        for text in lines:
            sent = [f"{name}: {value}" for name, value in {**usual, field: text}.items()]
            yield f"{field} {text[:20]}", request("POST /uploads", token, *sent, body=b"")
    portion = ("Tus-Resumable: 1.0.0", "Content-Type: application/offset+octet-stream")
    for text in (line("9"), line(" "), "1" * 4_000):
        offset = f"Upload-Offset: {text}"
        yield f"offset {text[:9]}", request(f"PATCH /uploads/{text[:9]}", token, *portion, offset)
    for piece in ("a", "%2f", "%00", "/"):
        path = line(piece, start="HEAD /uploads/")
        yield f"upload {piece}", request(path, token, "Tus-Resumable: 1.0.0")


def tokens() -> Named:
    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    good = part(b'{"alg":"RS256","kid":"first-key","typ":"JWT"}')
    for name, content in (
        ("lists", filled(b"[", size=5_000) + filled(b"]", size=5_000)),
        ("objects", filled(b'{"a":', size=11_000)),
        ("keys", filled(b'"@":1,', start=b"{", end=b'"x":1}', size=11_000)),
        ("numbers", filled(b"9" * 4_000 + b",", start=b'{"exp":[', end=b"1]}", size=11_000)),
        ("a number", filled(b"9", start=b'{"exp":', end=b"}", size=11_000)),
        ("audiences", filled(b'"@",', start=b'{"aud":[', end=b'"x"]}', size=11_000)),
        ("a name", filled(b"a", start=b'{"cognito:username":"', end=b'"}', size=11_000)),
        ("critical", filled(b'"@",', start=b'{"alg":"RS256","crit":[', end=b'"x"]}', size=11_000)),
    ):
        yield f"claims of {name}", request("GET /user", f"{good}.{part(content)}.{'A' * 342}")
        yield f"a head of {name}", request("GET /user", f"{part(content)}.{part(b'{}')}.AA")
    for piece in (".", "A", "=", "A.", " ", "-"):
        yield f"nothing but {piece!r}", request("GET /user", line(piece, size=30_000))
        yield f"16 kB of {piece!r}", request("GET /user", line(piece, size=16_000))
    signed = f"{good}.{part(b'{}')}."
    yield "a long signature", request("GET /user", signed + "A" * 15_000)


def framing(token: str) -> Named:
    welcome = b"GET / HTTP/1.1\r\nHost: g\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n"
    yield "requests in one segment", filled(welcome, end=last)
    for target in (b"/openapi.json", b"/nowhere"):
        yield f"requests for {target!r}", filled(welcome.replace(b"/ ", target + b" ", 1), end=last)
    for target in ("GET /user", "GET /jobs", "GET /files/?recursive=true", "GET /user/usage"):
        kept = request(target, token, "Connection: keep-alive")
        yield f"requests of a user, {target}", filled(kept, end=last)
    yield "blank lines", filled(b"\r\n", end=last)
    yield "bare newlines", filled(b"GET / HTTP/1.1\nHost: g\n\n")
    chunks = filled(b"1\r\n[\r\n", end=b"0\r\n\r\n")
    chunked = "Transfer-Encoding: chunked"
    yield "chunks of a byte", request("POST /jobs", token, chunked, JSON, body=chunks)
    for target in (UPLOAD, "POST /token"):
        for piece in (b"1\r\n\r\r\n", b"1\r\n-\r\n", b"1\r\nx\r\n", b"2\r\n\r\n\r\n"):
            body = filled(piece, start=b"5\r\n--b\r\n\r\n", end=b"0\r\n\r\n")
            yield (
                f"{target} in bytes {piece!r}",
                request(target, token, chunked, FORM, body=body),
            )
    extension = filled(b";a=b", start=b"1", end=b"\r\nx\r\n0\r\n\r\n", size=30_000)
    yield "chunk extensions", request("POST /jobs", token, chunked, JSON, body=extension)
    trailer = filled(b"a: b\r\n", start=b"0\r\n", end=b"\r\n")
    yield "trailers", request("POST /jobs", token, chunked, JSON, body=trailer)
    size = filled(b"0", end=b"1\r\nx\r\n0\r\n\r\n", size=30_000)
    yield "zeros of a size", request("POST /jobs", token, chunked, JSON, body=size)
    yield "zeros of a length", request("POST /jobs", token, line("0", start="Content-Length: "))
    for name, content in (("zeros", bytes(50 << 20)), ("parts", b"--b\r\n\r\n\r\n" * 500_000)):
        packed = gzip.compress(content)
        for kind in (FORM, JSON):
            headers = ("Content-Encoding: gzip", kind)
            yield f"packed {name} {kind}", request("POST /token", token, *headers, body=packed)
            yield f"packed {name} {kind} up", request(UPLOAD, token, *headers, body=packed)
