"""Requests of at most 64 KiB, derived by hypothesis from what is known to be awkward."""

from hypothesis import strategies as st

from tests.support.nasty.build import filled, request

_TARGETS = (
    "GET /", "GET /files/", "DELETE /files/data/", "GET /files/data/x/f/download", "PUT /files/x",
    "POST /files/data/x/upload", "POST /files/data/x/url", "GET /jobs", "POST /jobs",
    "POST /jobs/cancel", "GET /jobs/1/events", "POST /jobs/1/cancel", "PUT /_job_status",
    "POST /token", "POST /login", "POST /user", "OPTIONS /jobs", "GET /docs/",
    "POST /uploads", "PATCH /uploads/x", "HEAD /uploads/x", "OPTIONS /uploads",
)  # fmt: skip
_FIELDS = (
    "Content-Type", "Content-Encoding", "Range", "If-Match", "If-None-Match", "If-Range", "Cookie",
    "If-Modified-Since", "Accept", "Origin", "X-Forwarded-For", "X-Forwarded-Proto", "Forwarded",
    "Idempotency-Key", "Last-Event-ID", "Expect", "X-Request-ID", "Access-Control-Request-Headers",
    "Tus-Resumable", "Upload-Length", "Upload-Metadata", "Upload-Offset", "Upload-Checksum",
    "X-HTTP-Method-Override",
)  # fmt: skip
_KINDS = (
    "application/json", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded",
)  # fmt: skip
_STARTS = (
    b"", b"[", b'{"a":', b'{"ids":[', b'{"job_name":"',
    b'{"attributes":{"files_down":{"data_ids":[', b'{"attributes":{"env_vars":{',
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="',
    b"--b\r\nContent-Disposition: form-data", b"--b\r\n", b"username=", b"bytes=", b'"',
)  # fmt: skip
_ENDS = (b"", b"]", b"]}", b'"}', b"}", b"]}}}", b'"\r\n\r\nx\r\n--b--\r\n', b"--b--\r\n", b'"')
_PIECES = (
    b"a", b"/", b"..", b"%2e", b"%2f", b"%25", b"%", b"&", b"=", b"a=1&", b"@=1&", b";", b";a=b",
    b",", b'"', b'"@",', b'"a":1,', b'"@":"1",', b"@,", b"9", b"9,", b"null,", b"[", b"]", b"{",
    b'{"a":', b"\\", b"\\u0000", b"\\ud800", b" ", b"\t", b"\r", b"\r\n", b"\n", b"--b\r\n",
    b"\r\n--b", b"a:\r\n", b'; filename="', b";name*@=", b"--b\r\nContent-Disposition: x\r\n\r\n",
    b"-", b"0-0,", b'W/"', b"*", b"utf-8''", b"\xff", b"\xc3\xbc", b"\xed\xa0\x80", b"+", b":",
    b"(",
)  # fmt: skip

_piece = st.one_of(st.sampled_from(_PIECES), st.binary(min_size=1, max_size=4))
_repeated = st.lists(_piece, min_size=1, max_size=3).map(b"".join)


def _in_line(content: bytes) -> bytes:
    return content.translate(None, b"\r\n\0")


def _line(size: int) -> st.SearchStrategy[bytes]:
    """What one line of a head may hold: nothing, or as much as it takes."""
    full = st.builds(
        lambda start, piece: _in_line(filled(piece, start=start, size=size)),
        st.sampled_from(_STARTS),
        _repeated,
    )
    return st.one_of(st.just(b""), full)


_body = st.builds(
    lambda start, piece, end: filled(piece, start=start, end=end, size=30_000),
    st.sampled_from(_STARTS),
    _repeated,
    st.sampled_from(_ENDS),
)
_headers = st.dictionaries(st.sampled_from(_FIELDS), _line(8_000), max_size=2)


def fuzzed(token: str) -> st.SearchStrategy[bytes]:
    """Requests of the user whose token it is."""

    def build(
        target: str, filling: bytes, headers: dict[str, bytes], kind: str, body: bytes | None
    ) -> bytes:
        lines = [f"{name}: ".encode() + value for name, value in headers.items()]
        if "Content-Type" not in headers:
            lines.append(f"Content-Type: {kind}".encode())
        escaped = filling.replace(b" ", b"+").decode("latin-1")
        return request(f"{target}{escaped}", token, *lines, body=body)

    kinds = st.sampled_from(_KINDS)
    targets = st.sampled_from([*_TARGETS, *(f"{target}?" for target in _TARGETS)])
    return st.builds(
        build, targets, _line(15_000), _headers, kinds, st.one_of(st.none(), _body)
    ).filter(lambda message: len(message) <= 65_536)
