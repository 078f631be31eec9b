"""`/files`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp_apispec import (
    docs,
    json_schema,
    match_info_schema,
    querystring_schema,
    response_schema,
)

from common.storage.paths import UserPath
from common.storage.protocol import BATCH, Storage
from common.usage.ledger import UsageLedger
from gateway.files.digests.service import Digests
from gateway.files.digests.stated import FIELD as SHA256_FIELD
from gateway.files.downloads import NoSuchRange, OtherVersion, download
from gateway.files.links import SentRequest, to_this_api
from gateway.files.listings import ListingQuery, Listings
from gateway.files.renaming import rename
from gateway.files.schemas import (
    CONDITION_HEADERS,
    DIRECTORY_EXAMPLE,
    DOWNLOAD_EXAMPLE,
    DOWNLOAD_RESPONSES,
    FILE_PATH_PARAMETER,
    NOTHING,
    UPLOAD_BODY,
    UPLOAD_EXAMPLE,
    UPLOAD_RESPONSES,
    WANTED_DIGEST,
    ListingSchema,
    PathSchema,
    RenameSchema,
    RequestToSendSchema,
    UploadLinkSchema,
    UploadPlaceSchema,
    UploadSchema,
    header_parameter,
)
from gateway.files.unpacking.service import Unpacking
from gateway.files.uploads import Body, Uploads
from gateway.http.admission import Work, acquire
from gateway.http.audit import audit
from gateway.http.digest_fields import REPR_DIGEST, repr_digest
from gateway.http.disconnects import cancelled_on_disconnect
from gateway.http.errors import Answer, ErrorTable, Fault
from gateway.http.keys import BY_COOKIE, SETTINGS, USER
from gateway.http.origin import next_link, origin_of
from gateway.http.responses import json_bytes, json_response
from gateway.http.streaming import send, send_json
from gateway.http.validation import inspected_by, otherwise
from gateway.trees.entries import FILE_EXAMPLE, FileSchema, entry_json

STORAGE: Final[web.AppKey[Storage]] = web.AppKey("storage")
LISTINGS: Final = web.AppKey("listings", Listings)
UPLOADS: Final = web.AppKey("uploads", Uploads)
UNPACKING: Final = web.AppKey("unpacking", Unpacking)
DIGESTS: Final = web.AppKey("digests", Digests)
LEDGER: Final = web.AppKey("ledger", UsageLedger)

_QUOTA_EXCEEDED: Final = (
    "Your files may take at most 1000000000 bytes in all, and 1000000000 bytes are in use"
)

ERRORS: Final[ErrorTable] = {
    OtherVersion: lambda error, _: Answer(HTTPStatus.PRECONDITION_FAILED, headers=error.headers),
    NoSuchRange: lambda error, _: Answer(
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        headers={hdrs.CONTENT_RANGE: f"bytes */{error.size}", hdrs.ACCEPT_RANGES: "bytes"},
    ),
}


async def _open_tree(request: web.Request) -> Storage:
    """The storage, after the caller's tree was created."""
    storage = request.app[STORAGE]
    await storage.ensure_user(request[USER].id)
    return storage


def _path(request: web.Request) -> UserPath:
    return UserPath.parse(request[USER].id, request.match_info["file_path"])


def _upload_directory(request: web.Request) -> UserPath:
    """The directory that a POST names."""
    place = request["match_info"]
    return UserPath.parse(request[USER].id, f"{place['f_type']}/{place['base_path']}/")


def _body(request: web.Request) -> Body:
    kind = request.headers.get(hdrs.CONTENT_TYPE, "")
    return Body(kind, request.content_length, request.content)


def _sent(request: web.Request) -> SentRequest:
    authorization = None if request[BY_COOKIE] else request.headers[hdrs.AUTHORIZATION]
    return SentRequest(origin_of(request), request.rel_url.raw_path, authorization)


async def _inspect_upload(request: web.Request, _: Mapping[str, Any]) -> Sequence[Fault]:
    """The faults of the body, in addition to those of the path."""
    return await request.app[UPLOADS].find_faults(_body(request))


@docs(
    tags=["Files"],
    summary="List a directory",
    description="Entries sorted by path. The root (an empty path) holds the five predefined "
    "directories `config`, `data`, `artifact`, `output` and `log`.",
    parameters=[
        {**FILE_PATH_PARAMETER, "description": "Directory; `/`: the root.", "example": "data/x/"}
    ],
    errors=(404,),
    response_example=[FILE_EXAMPLE, DIRECTORY_EXAMPLE],
    without_path=("/files", "list_root", "List the root"),
)
@querystring_schema(ListingSchema)
@response_schema(FileSchema(many=True), HTTPStatus.OK, description="The entries.")
async def list_files(request: web.Request) -> web.Response:
    query = request["querystring"]
    await _open_tree(request)
    with cancelled_on_disconnect(request):
        listing = await request.app[LISTINGS].make(ListingQuery(path=_path(request), **query))
    headers: dict[str, str] = {}
    if listing.next_after is not None:
        headers[hdrs.LINK] = next_link(request, after=listing.next_after)
    return json_bytes(listing.body, headers=headers)


@docs(
    tags=["Files"],
    summary="Download",
    description="A file's bytes, with ranges and conditional requests; a directory as a zip.",
    parameters=[FILE_PATH_PARAMETER, *CONDITION_HEADERS, WANTED_DIGEST],
    errors={
        404: None,
        409: "S3 refuses: The operation is not valid for the object's storage class"
        " (InvalidObjectState)",
        412: "The file is not the one that was expected",
        413: "A zip may hold at most 10000 files",
        416: None,
    },
    responses=DOWNLOAD_RESPONSES,
)
async def download_file(request: web.Request) -> web.StreamResponse:
    storage = await _open_tree(request)
    limits = request.app[SETTINGS].limits
    return await download(
        storage,
        request.app[DIGESTS],
        _path(request),
        request.headers,
        limits,
        partial(send, request),
        work=partial(Work, request),
    )


@docs(
    tags=["Files"],
    summary="Prepare a download",
    description="The request that downloads the file: a presigned one for ten minutes, or this "
    "API's own. Its keys are arguments of an HTTP client's request function.",
    parameters=[FILE_PATH_PARAMETER],
    errors=(404,),
    response_example=DOWNLOAD_EXAMPLE,
)
@response_schema(RequestToSendSchema, HTTPStatus.OK, description="The request to send.")
async def download_link(request: web.Request) -> web.Response:
    storage = await _open_tree(request)
    path = _path(request)
    entry = await storage.stat(path)
    link = None if entry.is_directory else await storage.presign_download(path)
    return json_response(asdict(link or to_this_api(_sent(request), "get", "/download")))


@docs(
    tags=["Files"],
    summary="Upload a file",
    description="Stores the multipart field `file` under its own name; directories are created, "
    "an existing file is replaced atomically. Where the form states the file's SHA-256, another "
    "file is refused, and nothing changes. With `unpack=true` the file is an archive, a tar "
    "(plain, or compressed by gzip or zstd) or a zip, and its members are stored below the "
    "directory instead: all of them, or none if one is refused. Links, devices and encrypted "
    "members are.",
    errors={
        408: None,
        409: "'data/x' is not a directory",
        413: "A file may have at most 1000000 bytes",
        507: None,
    },
    requestBody=UPLOAD_BODY,
    responses=UPLOAD_RESPONSES,
)
@inspected_by(_inspect_upload)
@match_info_schema(UploadPlaceSchema)
@querystring_schema(UploadSchema)
async def upload_file(request: web.Request) -> web.StreamResponse:
    directory = _upload_directory(request)
    await _open_tree(request)
    if request["querystring"]["unpack"]:
        return await _unpack(request, directory)
    slot = await acquire(request, "transfer")
    try:
        stored = await request.app[UPLOADS].receive(_body(request), directory, waiting=slot.lent)
    finally:
        slot.release()
    headers = {REPR_DIGEST: repr_digest(stored.sha256)}
    return json_response(entry_json(stored.entry), status=HTTPStatus.CREATED, headers=headers)


async def _unpack(request: web.Request, directory: UserPath) -> web.StreamResponse:
    slot = await acquire(request, "unpacking")
    try:
        unpacking = request.app[UNPACKING]
        stored = await unpacking.receive(_body(request), directory, waiting=slot.lent)
        if len(stored) > BATCH:
            return await send_json(request, stored.json(), HTTPStatus.CREATED)
        body = b"".join([chunk async for chunk in stored.json()])
        return json_bytes(body, status=HTTPStatus.CREATED)
    finally:
        slot.release()


@docs(
    tags=["Files"],
    summary="Prepare an upload",
    description="The request that uploads into the directory: a presigned form for ten minutes, "
    "or this API's own. The client adds the form field `file`.",
    errors={409: "'data/x' is not a directory", 413: _QUOTA_EXCEEDED},
    response_example=UPLOAD_EXAMPLE,
)
@match_info_schema(UploadPlaceSchema)
@querystring_schema(UploadLinkSchema)
@response_schema(RequestToSendSchema, HTTPStatus.CREATED, description="The request to send.")
async def upload_link(request: web.Request) -> web.Response:
    directory, sha256 = _upload_directory(request), request["querystring"].get("sha256")
    await _open_tree(request)
    link = await request.app[UPLOADS].prepare(directory, sha256=sha256)
    fields = {} if sha256 is None else {SHA256_FIELD: sha256}
    link = link or to_this_api(_sent(request), "post", "/upload", fields)
    return json_response(asdict(link), status=HTTPStatus.CREATED)


@docs(
    tags=["Files"],
    summary="Create a directory",
    description="Creates a directory and its parents; idempotent.",
    errors=(409, 507),
    responses={
        "201": {
            "description": "The directory exists.",
            "content": {"application/json": {"schema": NOTHING, "example": None}},
        }
    },
)
@match_info_schema(UploadPlaceSchema)
async def make_directory(request: web.Request) -> web.Response:
    directory = _upload_directory(request)
    storage = await _open_tree(request)
    await storage.make_directory(directory)
    return json_response(None, status=HTTPStatus.CREATED)


@docs(
    tags=["Files"],
    summary="Rename",
    description="Moves a file or an empty directory. Parents are created, an existing target file "
    "is replaced unless `If-None-Match: *` is sent.",
    parameters=[header_parameter("If-None-Match", "`*`: do not replace a file.", "*")],
    errors={
        404: None,
        405: "Cannot rename a non-empty directory",
        409: "'data/x' is a file",
        412: None,
        507: None,
    },
    request_example={"path": "data/y/f.csv"},
    response_example={**FILE_EXAMPLE, "path": "data/y/f.csv"},
)
@otherwise(
    "PUT renames, with a body of JSON; to upload a file, POST it as the form field 'file' to"
    " /files/{type}/{path}/upload"
)
@match_info_schema(PathSchema)
@json_schema(RenameSchema)
@response_schema(FileSchema, HTTPStatus.OK, description="The file at its new place.")
async def rename_file(request: web.Request) -> web.Response:
    storage = await _open_tree(request)
    source = _path(request)
    with request.app[LEDGER].changing(request[USER].id) as growth:
        moved = await rename(
            storage,
            source,
            request["json"]["path"],
            replace=request.headers.get(hdrs.IF_NONE_MATCH, "").strip() != "*",
        )
        growth.bytes -= moved.replaced
    await request.app[DIGESTS].follow(source, moved)
    return json_response(entry_json(moved))


@docs(
    tags=["Files"],
    summary="Delete",
    description="Removes a file or a directory with its content; idempotent. The root and the "
    "predefined directories are emptied, not removed.",
    responses={"204": {"description": "There is nothing at this path."}},
)
@match_info_schema(PathSchema)
async def delete_file(request: web.Request) -> web.Response:
    storage = await _open_tree(request)
    path = _path(request)
    with request.app[LEDGER].changing(request[USER].id) as growth:
        growth.bytes -= await storage.delete(path)
    audit(request, "delete_file", target=f"files/{path}")
    return web.Response(status=HTTPStatus.NO_CONTENT)
