"""Presigned URLs and forms: requests that clients send to S3 directly."""

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
    client: Any, bucket: str, prefix: str, *, most: int | None = None
) -> PreparedRequest:
    """A form upload to the key `prefix` + file name, and to no other, of at most `most` bytes."""
    conditions: list[Any] = [["starts-with", "$key", prefix]]
    if most is not None:
        conditions.append(["content-length-range", 0, most])
    with storage_errors():
        post = await client.generate_presigned_post(
            Bucket=bucket,
            Key=prefix + "${filename}",
            Conditions=conditions,
            ExpiresIn=LINK_SECONDS,
        )
    return PreparedRequest(method="post", url=post["url"], headers={}, data=post["fields"])
