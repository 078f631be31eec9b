"""Presigned URLs and forms: requests that clients send to S3 directly."""

import base64
from typing import Any

from common.storage.headers import CACHE_CONTROL, attachment, content_type
from common.storage.protocol import LINK_SECONDS, PreparedRequest
from common.storage.s3.bucket import storage_errors


async def presign_get(client: Any, bucket: str, key: str) -> PreparedRequest:
    """A URL for the object's content, served with the headers of this API's own downloads."""
    name = key.rpartition("/")[2]
    params = {
        "Bucket": bucket,
        "Key": key,
        "ResponseCacheControl": CACHE_CONTROL,
        "ResponseContentDisposition": attachment(name),
        "ResponseContentType": content_type(name),
    }
    with storage_errors():
        url = await client.generate_presigned_url(
            "get_object", Params=params, ExpiresIn=LINK_SECONDS
        )
    return PreparedRequest(method="get", url=url, headers={}, data={})


async def presign_post(
    client: Any, bucket: str, prefix: str, *, most: int | None = None, sha256: str | None = None
) -> PreparedRequest:
    """A form upload to the key `prefix` + file name, and to no other, of at most `most` bytes.

    With `sha256`, in hexadecimal, S3 itself refuses any other file, and keeps the checksum.
    """
    fields = {} if sha256 is None else _checksum_fields(sha256)
    conditions: list[Any] = [["starts-with", "$key", prefix]]
    if most is not None:
        conditions.append(["content-length-range", 0, most])
    conditions += [{name: value} for name, value in fields.items()]
    with storage_errors():
        post = await client.generate_presigned_post(
            Bucket=bucket,
            Key=prefix + "${filename}",
            Fields=fields,
            Conditions=conditions,
            ExpiresIn=LINK_SECONDS,
        )
    return PreparedRequest(method="post", url=post["url"], headers={}, data=post["fields"])


def _checksum_fields(sha256: str) -> dict[str, str]:
    encoded = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {"x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-sha256": encoded}
