"""Requests that clients send to S3 themselves."""

from typing import Any, Final
from urllib.parse import quote

from common.storage.protocol import PresignedRequest
from common.storage.s3_errors import translated

LIFETIME: Final = 600
"""Seconds for which such a request holds."""


async def presign_get(client: Any, bucket: str, key: str) -> PresignedRequest:
    """A request for the object's bytes, which browsers save instead of showing."""
    name = key.rpartition("/")[2]
    params = {
        "Bucket": bucket,
        "Key": key,
        "ResponseContentDisposition": _attachment(name),
    }
    with translated():
        url = await client.generate_presigned_url("get_object", Params=params, ExpiresIn=LIFETIME)
    return PresignedRequest(method="get", url=url, headers={}, data={})


async def presign_post(client: Any, bucket: str, prefix: str) -> PresignedRequest:
    """A form upload whose key is `prefix` and the name of the file; nothing else is allowed."""
    with translated():
        post = await client.generate_presigned_post(
            Bucket=bucket,
            Key=prefix + "${filename}",
            Conditions=[["starts-with", "$key", prefix]],
            ExpiresIn=LIFETIME,
        )
    return PresignedRequest(method="post", url=post["url"], headers={}, data=post["fields"])


def _attachment(name: str) -> str:
    """`Content-Disposition` of a download (RFC 6266), with a plain name for old clients."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
