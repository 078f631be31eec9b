"""S3 without a store, a process of its own: it takes objects of any size, forgets their bytes, and
gives as many zeros back. So a transfer through the gateway measures the gateway.

`python -m benchmarks.null_s3 --port 1234`

Any bucket is there, all of them are one, and no signature is looked at.
"""

import argparse
import re
from datetime import UTC, datetime
from email.utils import formatdate
from itertools import islice
from typing import Final
from xml.sax.saxutils import escape, unescape

import uvloop
from aiohttp import hdrs, web

from benchmarks.null_objects import NullObject, NullObjects
from deploy.sandbox.ports import LOOPBACK

OBJECTS: Final = web.AppKey("objects", NullObjects)

_ZEROS: Final = memoryview(bytes(1 << 18))
_KEY = re.compile("<Key>(.*?)</Key>", re.DOTALL)
_RANGE = re.compile(r"bytes=(\d+)-(\d*)", re.ASCII)
_MOST_KEYS: Final = 1_000


async def _look_at_bucket(_: web.Request) -> web.StreamResponse:
    """HeadBucket."""
    return web.Response()


async def _list(request: web.Request) -> web.StreamResponse:
    """ListObjectsV2, and ListMultipartUploads, which names none."""
    query = request.query
    if "uploads" in query:
        return _xml("ListMultipartUploadsResult", "")
    most = min(int(query.get("max-keys", _MOST_KEYS)), _MOST_KEYS)
    after = query.get("continuation-token") or query.get("start-after", "")
    below = request.app[OBJECTS].below(query.get("prefix", ""), query.get("delimiter", ""), after)
    found = [*islice(below, most + 1)]
    page = [_listed(key, item) for key, item in found[:most]]
    if len(found) > most:
        token = escape(found[most - 1][0])
        page.append(f"<NextContinuationToken>{token}</NextContinuationToken>")
    is_cut = "true" if len(found) > most else "false"
    return _xml("ListBucketResult", f"<IsTruncated>{is_cut}</IsTruncated>" + "".join(page))


def _listed(key: str, item: NullObject | None) -> str:
    if item is None:
        return f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>"
    return (
        f"<Contents><Key>{escape(key)}</Key><Size>{item.size}</Size>"
        f"<ETag>&quot;{item.etag}&quot;</ETag>{_modified(item)}</Contents>"
    )


def _modified(item: NullObject) -> str:
    moment = datetime.fromtimestamp(item.modified, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"<LastModified>{moment}</LastModified>"


async def _put(request: web.Request) -> web.StreamResponse:
    """PutObject, UploadPart or CopyObject."""
    objects, key, query = request.app[OBJECTS], request.match_info["key"], request.query
    if source := request.headers.get("x-amz-copy-source"):
        origin = objects.get(source.lstrip("/").partition("/")[2])
        if origin is None:
            return _refusal(404, "NoSuchKey")
        made = objects.put(key, origin.size)
        return _xml("CopyObjectResult", f"<ETag>&quot;{made.etag}&quot;</ETag>{_modified(made)}")
    size = await _discard(request)
    if "uploadId" not in query:
        return _stored(objects.put(key, size).etag)
    try:
        return _stored(objects.add_part(query["uploadId"], int(query["partNumber"]), size))
    except KeyError:
        return _refusal(404, "NoSuchUpload")


async def _discard(request: web.Request) -> int:
    """Read a body of any size, and forget it; returns its size."""
    size = 0
    async for piece in request.content.iter_any():
        size += len(piece)
    return size


def _stored(etag: str) -> web.Response:
    return web.Response(headers={hdrs.ETAG: f'"{etag}"'})


async def _post(request: web.Request) -> web.StreamResponse:
    """CreateMultipartUpload or CompleteMultipartUpload."""
    objects, key, query = request.app[OBJECTS], request.match_info["key"], request.query
    await _discard(request)
    if "uploads" in query:
        begun = f"<UploadId>{objects.begin()}</UploadId>"
        return _xml("InitiateMultipartUploadResult", begun)
    try:
        made = objects.complete(query["uploadId"], key)
    except KeyError:
        return _refusal(404, "NoSuchUpload")
    return _xml("CompleteMultipartUploadResult", f"<ETag>&quot;{made.etag}&quot;</ETag>")


async def _delete(request: web.Request) -> web.StreamResponse:
    """DeleteObject or AbortMultipartUpload."""
    objects = request.app[OBJECTS]
    if "uploadId" in request.query:
        objects.abort(request.query["uploadId"])
    else:
        objects.delete(request.match_info["key"])
    return web.Response(status=204)


async def _delete_many(request: web.Request) -> web.StreamResponse:
    """DeleteObjects, quietly."""
    if "delete" not in request.query:
        return _refusal(400, "InvalidRequest")
    for key in _KEY.findall(await request.text()):
        request.app[OBJECTS].delete(unescape(key))
    return _xml("DeleteResult", "")


async def _get(request: web.Request) -> web.StreamResponse:
    """GetObject, with a single range, or HeadObject."""
    item = request.app[OBJECTS].get(request.match_info["key"])
    if item is None:
        return _refusal(404, "NoSuchKey")
    if request.headers.get(hdrs.IF_MATCH, f'"{item.etag}"') != f'"{item.etag}"':
        return _refusal(412, "PreconditionFailed")
    first, last = 0, item.size - 1
    headers = {
        hdrs.ETAG: f'"{item.etag}"',
        hdrs.LAST_MODIFIED: formatdate(item.modified, usegmt=True),
        hdrs.CONTENT_TYPE: "application/octet-stream",
    }
    spans = _RANGE.fullmatch(request.headers.get(hdrs.RANGE, ""))
    if spans is not None:
        first = int(spans[1])
        last = min(last, int(spans[2] or last))
        if first > last:
            return _refusal(416, "InvalidRange")
        headers[hdrs.CONTENT_RANGE] = f"bytes {first}-{last}/{item.size}"
    response = web.StreamResponse(status=200 if spans is None else 206, headers=headers)
    return await _send_zeros(request, response, last + 1 - first)


async def _send_zeros(
    request: web.Request, response: web.StreamResponse, size: int
) -> web.StreamResponse:
    response.content_length = size
    await response.prepare(request)
    left = 0 if request.method == hdrs.METH_HEAD else size
    while left > 0:
        piece = _ZEROS[: min(left, len(_ZEROS))]
        await response.write(piece)
        left -= len(piece)
    await response.write_eof()
    return response


def _xml(name: str, inside: str, *, status: int = 200) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{name}>{inside}</{name}>'
    return web.Response(status=status, text=text, content_type="application/xml")


def _refusal(status: int, code: str) -> web.Response:
    return _xml("Error", f"<Code>{code}</Code>", status=status)


def create_app() -> web.Application:
    app = web.Application()
    app[OBJECTS] = NullObjects()
    app.router.add_head("/{bucket}", _look_at_bucket)
    app.router.add_get("/{bucket}", _list, allow_head=False)
    app.router.add_post("/{bucket}", _delete_many)
    app.router.add_get("/{bucket}/{key:.+}", _get)  # and HEAD
    app.router.add_put("/{bucket}/{key:.+}", _put)
    app.router.add_post("/{bucket}/{key:.+}", _post)
    app.router.add_delete("/{bucket}/{key:.+}", _delete)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    web.run_app(
        create_app(),
        host=LOOPBACK,
        port=arguments.port,
        loop=uvloop.new_event_loop(),
        access_log=None,
        print=None,
    )


if __name__ == "__main__":
    main()
