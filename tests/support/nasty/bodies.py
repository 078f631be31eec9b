"""Forms and JSON that take as much work as can be."""

import orjson

from devtools.user_pool import INTERNAL_KEY
from tests.support.gateway import job_body
from tests.support.nasty.build import FILE, FORM, JSON, UPLOAD, Named, filled, line, request

_URLENCODED = "Content-Type: application/x-www-form-urlencoded"


def forms(token: str) -> Named:
    part = b'--b\r\nContent-Disposition: form-data; name="@"\r\n\r\n\r\n'
    long = b"--b\r\nContent-Disposition: form-data; "
    for name, piece, start, end in (
        ("parts before the file", part, b"", FILE + b"--b--\r\n"),
        ("parts after the file", part, FILE, b"--b--\r\n"),
        ("parts instead of a file", part, b"", b"--b--\r\n"),
        ("empty parts", b"--b\r\n\r\n\r\n", b"", b"--b--\r\n"),
        ("delimiters", b"--b\r\n", b"", b"--b--\r\n"),
        ("headers of a part", b"a:\r\n", b"--b\r\n", b"\r\n\r\n--b--\r\n"),
        ("parts with headers", b"--b\r\n" + b"a:\r\n" * 100 + b"\r\n\r\n", b"", b"--b--\r\n"),
        ("a preamble of blank lines", b"\r\n", b"", FILE + b"--b--\r\n"),
        ("a preamble of carriage returns", b"\r", b"", b"\r\n" + FILE + b"--b--\r\n"),
        ("what begins as a delimiter", b"\r\n--", b"", b"\r\n" + FILE + b"--b--\r\n"),
        ("an epilogue", b"\r\n", FILE + b"--b--\r\n", b""),
        ("two files", b"", FILE + FILE, b"--b--\r\n"),
    ):
        yield name, request(UPLOAD, token, FORM, body=filled(piece, start=start, end=end))
    for name, piece in (
        ("parameters", b";a=b"),
        ("open quotes", b'; filename="'),
        ("continuations", b';filename*@="a"'),
        ("encodings", b";filename*=utf-8''%41"),
        ("backslashes", b"\\\\"),
        ("quotes", b'"'),
        ("blanks", b" "),
    ):
        for opening in (b'name="file"; filename="x', b'name="file"; filename="x"', b""):
            disposition = filled(piece, start=long + opening, size=8_150) + b"\r\n\r\nx\r\n"
            body = filled(disposition, end=b"--b--\r\n")
            yield (
                f"dispositions of {name} {opening!r}",
                request(UPLOAD, token, FORM, body=body),
            )
    for name, piece in (
        ("blanks", " "), ("boundaries", "boundary"), ("empty ones", 'boundary=" '),
        ("letters and blanks", "x "), ("parameters", ";a=b"), ("quotes", '"'),
    ):  # fmt: skip
        for end in ("x" + " " * 8_000 + '"', ""):
            kind = line(piece, start="Content-Type: multipart/form-data; boundary=", end=end)
            yield f"a boundary of {name} {len(end)}", request(UPLOAD, token, kind, body=FILE)


def account_forms(token: str) -> Named:
    part = b'--b\r\nContent-Disposition: form-data; name="@"\r\n\r\n\r\n'
    for path in ("/token", "/login"):
        for name, piece in (
            ("parts", part),
            ("one part again and again", part.replace(b"@", b"username")),
            ("empty parts", b"--b\r\n\r\n\r\n"),
            ("parts with headers", b"--b\r\n" + b"a:\r\n" * 100 + b"\r\n\r\n"),
            ("files", FILE),
            ("blank lines", b"\r\n"),
            ("nested forms", b"--b\r\nContent-Type: multipart/mixed; boundary=b@\r\n\r\n--b@\r\n"),
            ("escapes", b"--b\r\nContent-Transfer-Encoding: base64\r\n\r\nYQ==\r\n"),
            (
                "dispositions",
                b"--b\r\nContent-Disposition: form-data" + b";a=b" * 2_000 + b"\r\n\r\n\r\n",
            ),
        ):
            body = filled(piece, end=b"--b--\r\n")
            yield f"{path} {name}", request(f"POST {path}", token, FORM, body=body)
        for name, piece in (
            ("fields", b"a@=1&"), ("one field", b"username=1&"), ("ampersands", b"&"),
            ("equals signs", b"="), ("escapes", b"%26"), ("broken escapes", b"%"),
            ("plus signs", b"+"), ("999 fields", b"a@=" + b"x" * 50 + b"&"),
        ):  # fmt: skip
            body = filled(piece)
            yield f"{path} {name}", request(f"POST {path}", token, _URLENCODED, body=body)


def _submission(**changes: object) -> bytes:
    return orjson.dumps(job_body(**changes))


def _with(files_down: str, piece: bytes) -> bytes:
    before, after = _submission(attributes={"files_down": {files_down: ["#"]}}).split(b'"#"')
    return filled(piece, start=before, end=b'"x"' + after)


def json(token: str) -> Named:
    bodies: list[tuple[str, bytes]] = [
        ("lists in lists", filled(b"[", size=30_000) + filled(b"]", size=30_000)),
        ("open lists", filled(b"[")),
        ("objects in objects", filled(b'{"a":')),
        ("a huge number", filled(b"9")),
        ("huge numbers", filled(b"9" * 4_000 + b",", start=b"[", end=b"1]")),
        ("a fraction", filled(b"3", start=b"0.")),
        ("keys", filled(b'"@":1,', start=b"{", end=b'"x":1}')),
        ("one key", filled(b'"job_name":1,', start=b"{", end=b'"x":1}')),
        ("escapes", filled(b"\\u0041", start=b'{"job_name":"', end=b'"}')),
        ("surrogates", filled(b"\\ud800", start=b'{"runtime_details":"', end=b'"}')),
        ("UTF-16", ("[" * 15_000 + "]" * 15_000).encode("utf-16")),
        ("blanks", filled(b" ")),
    ]
    for argument in ("data_ids", "artifact_ids"):
        bodies += [
            (f"{argument}, each another", _with(argument, b'"@",')),
            (f"{argument}, the same", _with(argument, b'"a",')),
            (f"{argument}, one place in many spellings", _with(argument, b'"a//",')),
            (f"{argument}, empty", _with(argument, b'"",')),
            (f"{argument}, controls", _with(argument, b'"\\u0000",')),
            (f"{argument}, numbers", _with(argument, b"1,")),
            (f"{argument}, deep", _with(argument, b'"' + b"a/" * 100 + b'@",')),
            (f"{argument}, dots", _with(argument, b'"' + b"%252e" * 40 + b'",')),
        ]
    before, after = _submission(job_name="#").split(b'"#"')
    for name, piece in (("text", b"a"), ("slashes", b"/"), ("dots", b"%2e"), ("number", b"9")):
        start, end = before + b'"', b'"' + after
        bodies.append((f"a name of {name}", filled(piece, start=start, end=end)))
    variables = {"files_down": {}, "env_vars": {"#": "1"}}
    before, after = _submission(attributes=variables).split(b'"#":"1"')
    for name, piece in (("variables", b'"A@":"1",'), ("wrong variables", b'"A@":1,')):
        bodies.append((name, filled(piece, start=before, end=b'"KEY":"1"' + after)))
    bodies.append(("labels", _submission(labels={f"k{n}": "1" for n in range(4_000)})))
    bodies.append(("hardware", _submission(hardware={f"k{n}": "1" for n in range(4_000)})))
    for name, body in bodies:
        yield f"submission, {name}", request("POST /jobs", token, JSON, body=body)
    for target in ("POST /jobs/cancel", "PUT /files/data/x", "PUT /_job_status", "POST /token"):
        for name, body in bodies[:12]:
            key = f"x-api-key: {INTERNAL_KEY}"
            yield f"{target}, {name}", request(target, token, key, JSON, body=body)
    for name, piece in (
        ("ids", b"@,"), ("the same ids", b"1,"), ("huge ids", b"9" * 60 + b","),
        ("ids in text", b'"@",'), ("wrong ids", b"null,"),
    ):  # fmt: skip
        for size in (6_000, 60_000):
            body = filled(piece, start=b'{"ids":[', end=b"1]}", size=size)
            yield f"cancel {size} of {name}", request("POST /jobs/cancel", token, JSON, body=body)
    thousand = orjson.dumps({"ids": list(range(1, 1_001)), "reason": "x" * 1_000})
    yield "cancel a thousand", request("POST /jobs/cancel", token, JSON, body=thousand)
    for name, piece in (("slashes", b"/"), ("names", b"a/"), ("dots", b"%2e")):
        body = filled(piece, start=b'{"path":"data/', end=b'"}')
        yield f"rename to {name}", request("PUT /files/data/x", token, JSON, body=body)
    details = filled(
        b"x\\n", start=b'{"job_id":1,"status":"running","runtime_details":"', end=b'"}'
    )
    key = f"x-api-key: {INTERNAL_KEY}"
    yield "lines of an update", request("PUT /_job_status", token, key, JSON, body=details)
