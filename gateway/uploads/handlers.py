"""`/uploads`."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web
from aiohttp_apispec import docs

from common.uploads.records import Upload
from gateway.http.admission import acquire
from gateway.http.digest_fields import REPR_DIGEST, repr_digest
from gateway.http.errors import Answer, ErrorTable
from gateway.http.keys import USER
from gateway.http.origin import origin_of
from gateway.http.responses import refused_with
from gateway.uploads import errors
from gateway.uploads.bodies import Body, BrokenBody
from gateway.uploads.protocol import (
    ALGORITHMS,
    EXTENSIONS,
    REFUSED,
    VERSION_HEADER,
    check_id,
    check_portion,
    check_version,
    expiry,
    read_checksum,
    read_new_upload,
    read_number,
)
from gateway.uploads.schemas import (
    FIRST_PORTION,
    INVALID,
    PORTION_BODY,
    answered,
    fault,
    of_one,
    sent,
)
from gateway.uploads.service import ResumableUploads

RESUMABLE: Final = web.AppKey("resumable_uploads", ResumableUploads)

_CHECKSUM_MISMATCH: Final = 460

ERRORS: Final[ErrorTable] = {
    BrokenBody: Answer(HTTPStatus.BAD_REQUEST),
    errors.UploadNotFound: Answer(HTTPStatus.NOT_FOUND, "Not Found"),
    errors.UploadExpired: Answer(HTTPStatus.GONE),
    errors.UploadBusy: Answer(HTTPStatus.LOCKED, headers={"Retry-After": "1"}),
    errors.WrongOffset: Answer(HTTPStatus.CONFLICT),
    errors.WrongChecksum: Answer(_CHECKSUM_MISMATCH),
    errors.OtherVersion: Answer(HTTPStatus.PRECONDITION_FAILED),
    errors.BadRequest: Answer(HTTPStatus.BAD_REQUEST),
    errors.WrongContentType: Answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
}

_OF_FILES: Final = {
    413: "A file may have at most 1000000 bytes",
    507: None,
}
_OF_ONE: Final = {
    404: None,
    405: "Method Not Allowed",
    410: None,
    412: "Tus-Resumable must be 1.0.0",
    423: None,
}
_OF_PORTIONS: Final = {
    400: "The algorithm of Upload-Checksum must be one of sha1, sha256",
    408: None,
    409: "The next byte of the upload has the offset 8388608",
    412: "Tus-Resumable must be 1.0.0",
    415: "The content type must be application/offset+octet-stream",
    460: None,
    **_OF_FILES,
}
_OVERRIDE: Final = ("X-HTTP-Method-Override",)


@docs(
    tags=["Uploads"],
    summary="Describe the protocol",
    description="The version, the extensions and the limits of tus that this service has.",
    responses={
        "204": answered(
            "What is supported.",
            "Tus-Version",
            "Tus-Extension",
            "Tus-Checksum-Algorithm",
            "Tus-Max-Size",
        )
    },
)
@refused_with(VERSION_HEADER)
async def describe_protocol(request: web.Request) -> web.Response:
    headers = {
        **REFUSED,
        "Tus-Extension": EXTENSIONS,
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        **_max_size(request),
    }
    return web.Response(status=HTTPStatus.NO_CONTENT, headers=headers)


@docs(
    tags=["Uploads"],
    summary="Begin an upload",
    description="Announces a file, and where it is to be. It may come with its first bytes; an "
    "empty file is complete at once.",
    parameters=sent(
        "Tus-Resumable",
        "Upload-Length",
        "Upload-Metadata",
        optional=("Upload-Checksum", *_OVERRIDE),
    ),
    requestBody=FIRST_PORTION,
    errors={**_OF_PORTIONS, 405: "Method Not Allowed", 409: "'data/x' is not a directory"},
    responses={
        "201": answered(
            "The upload.", "Location", "Upload-Expires", "Upload-Offset", "Repr-Digest", "ETag"
        ),
        "422": INVALID,
    },
    response_example=fault(
        "upload-metadata",
        "Value error, 'path' is required, or 'dir' and 'filename'",
        "missing",
    ),
)
@refused_with(REFUSED)
async def create_upload(request: web.Request) -> web.Response:
    check_version(request.headers)
    uploads = request.app[RESUMABLE]
    new = read_new_upload(request[USER].id, request.headers)
    if request.body_exists:
        check_portion(request.content_type)
        checksum = read_checksum(request.headers)
        async with _portion(request) as body:
            upload = await uploads.create(new, body, checksum)
    else:
        upload = await uploads.create(new)
    path = request.rel_url.raw_path.rstrip("/")
    headers = {
        hdrs.LOCATION: f"{origin_of(request)}{path}/{upload.id}",
        **_max_size(request),
        **_progress(upload),
    }
    return web.Response(status=HTTPStatus.CREATED, headers=headers)


@docs(
    tags=["Uploads"],
    summary="Ask how far an upload is",
    description="A finished one is known, with its full offset, until it expires.",
    parameters=of_one("Tus-Resumable", optional=_OVERRIDE),
    errors={**_OF_ONE, 409: "'data/x' is not a directory", 507: None},
    responses={
        "200": answered(
            "The upload.",
            "Upload-Offset",
            "Upload-Length",
            "Upload-Metadata",
            "Upload-Expires",
            "Repr-Digest",
            "ETag",
        )
    },
)
@refused_with({**REFUSED, hdrs.CACHE_CONTROL: "no-store"})
async def find_upload(request: web.Request) -> web.Response:
    check_version(request.headers)
    upload_id = check_id(request.match_info["upload_id"])
    upload = await request.app[RESUMABLE].find(request[USER].id, upload_id)
    headers = {
        **_progress(upload),
        "Upload-Length": str(upload.length),
        hdrs.CACHE_CONTROL: "no-store",
    }
    if upload.sent_metadata:
        headers["Upload-Metadata"] = upload.sent_metadata
    return web.Response(headers=headers)


@docs(
    tags=["Uploads"],
    summary="Send the next bytes of an upload",
    description="The file appears at its place, whole, with the last one. What arrives before a "
    "connection breaks is kept, except where the body has a checksum.",
    parameters=of_one("Tus-Resumable", "Upload-Offset", optional=("Upload-Checksum", *_OVERRIDE)),
    requestBody=PORTION_BODY,
    errors={**_OF_ONE, **_OF_PORTIONS},
    responses={
        "204": answered(
            "The bytes are there.", "Upload-Offset", "Upload-Expires", "Repr-Digest", "ETag"
        ),
        "422": INVALID,
    },
    response_example=fault("upload-offset", "Field required", "missing"),
)
@refused_with(REFUSED)
async def append_to_upload(request: web.Request) -> web.Response:
    check_version(request.headers)
    check_portion(request.content_type)
    offset = read_number(request.headers, "Upload-Offset")
    checksum = read_checksum(request.headers)
    upload_id = check_id(request.match_info["upload_id"])
    async with _portion(request) as body:
        upload = await request.app[RESUMABLE].append(
            request[USER].id, upload_id, offset, body, checksum
        )
    return web.Response(status=HTTPStatus.NO_CONTENT, headers=_progress(upload))


@docs(
    tags=["Uploads"],
    summary="Forget an upload",
    description="Removes what has arrived of it; of a finished one, the file stays.",
    parameters=of_one("Tus-Resumable", optional=_OVERRIDE),
    errors=_OF_ONE,
    responses={"204": answered("There is no such upload any more.")},
)
@refused_with(REFUSED)
async def terminate_upload(request: web.Request) -> web.Response:
    check_version(request.headers)
    upload_id = check_id(request.match_info["upload_id"])
    await request.app[RESUMABLE].terminate(request[USER].id, upload_id)
    return web.Response(status=HTTPStatus.NO_CONTENT, headers=VERSION_HEADER)


@asynccontextmanager
async def _portion(request: web.Request) -> AsyncIterator[Body]:
    """The body, with a slot for its transfer, which is lent while the client stands still."""
    slot = await acquire(request, "transfer")
    try:
        yield Body(request.content, request.content_length, slot.lent)
    finally:
        slot.release()


def _progress(upload: Upload) -> dict[str, str]:
    """How far an upload is, and which file it has become."""
    headers = {
        **VERSION_HEADER,
        "Upload-Offset": str(upload.received),
        "Upload-Expires": expiry(upload.expires_at),
    }
    if upload.is_finished and upload.sha256:
        headers[REPR_DIGEST] = repr_digest(upload.sha256)
    if upload.etag:
        headers[hdrs.ETAG] = f'"{upload.etag}"'
    return headers


def _max_size(request: web.Request) -> Mapping[str, str]:
    most = request.app[RESUMABLE].limits.most
    return {"Tus-Max-Size": str(most)} if most else {}
