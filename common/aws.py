"""AWS clients: credentials and endpoints come from the standard environment variables.

botocore is large and not needed without AWS, so it is imported inside the functions.
"""

from typing import Any


class AwsError(Exception):
    """AWS refused or did not answer; the message contains an error code, never a credential."""


def create_session() -> Any:
    """A session for `create_client`; it caches AWS's service descriptions, which are large."""
    from aiobotocore.session import get_session

    return get_session()


def create_client(
    service: str, *, region: str | None = None, session: Any = None, **config: Any
) -> Any:
    """An asynchronous client, as a context manager; `region` defaults to the environment's."""
    from aiobotocore.config import AioConfig

    settings = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 3}, **config}
    return (session or create_session()).create_client(
        service, region_name=region, config=AioConfig(**settings)
    )


def error_code(error: Exception) -> str:
    """AWS's code for an error, or the name of botocore's exception."""
    if hasattr(error, "response"):  # botocore's ClientError
        return str(error.response.get("Error", {}).get("Code", "unknown error"))
    return type(error).__name__


async def fetch_object(
    session: Any, bucket: str, key: str, *, unless_etag: str | None
) -> tuple[bytes, str] | None:
    """An S3 object's content and ETag; None if the ETag is still `unless_etag`.

    Raises `AwsError`.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    condition = {"IfNoneMatch": unless_etag} if unless_etag else {}
    try:
        async with create_client("s3", session=session) as s3:
            answer = await s3.get_object(Bucket=bucket, Key=key, **condition)
            async with answer["Body"] as body:
                return await body.read(), answer["ETag"]
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 304:
            return None
        raise AwsError(f"S3 answered {error_code(error)}") from error
    except (BotoCoreError, OSError) as error:
        raise AwsError(f"S3 did not answer ({error_code(error)})") from error
