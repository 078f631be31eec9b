"""Objects that S3 does not hand out, or not at the moment: what clients are answered."""

from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from aiobotocore.client import AioBaseClient
from botocore.exceptions import ClientError, ReadTimeoutError

from tests.support.gateway import Api

pytestmark = pytest.mark.parametrize("gateway", ["s3"], indirect=True, scope="session", ids=["s3"])
CREDENTIALS = {
    "region_name": "eu-central-1", "aws_access_key_id": "any", "aws_secret_access_key": "any",
}  # fmt: skip
MESSAGE = "The ciphertext refers to a key that arn:aws:kms:eu:1234:key/beef does not allow"


def client_error(code: str, status: int) -> ClientError:
    facts = {"Code": code, "Message": MESSAGE}
    return ClientError(
        {"Error": facts, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"
    )


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception]:
    """Errors of S3's operations, by operation, for keys that end in `refused`."""
    errors: dict[str, Exception] = {}
    call = AioBaseClient._make_api_call

    async def call_or_fail(self: Any, operation: str, request: dict[str, Any]) -> Any:
        if operation in errors and str(request.get("Key")).endswith("refused"):
            raise errors[operation]
        return await call(self, operation, request)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", call_or_fail)
    return errors


REFUSALS = pytest.mark.parametrize(
    ("error", "status"),
    [
        (client_error("AccessDenied", 403), 403),
        (client_error("KMS.DisabledException", 400), 409),
        (client_error("SlowDown", 503), 503),
        (client_error("InvalidAccessKeyId", 403), 503),
        (ReadTimeoutError(endpoint_url="http://storage"), 503),
    ],
    ids=["access", "key", "throttling", "credentials", "time-out"],
)


@REFUSALS
@pytest.mark.parametrize("size", [10, 300_000])
@pytest.mark.parametrize("target", ["refused", ""], ids=["file", "zip"])
def test_a_refusal_is_the_answer_instead_of_a_broken_body(
    api: Api, fails: dict[str, Exception], error: Exception, status: int, size: int, target: str
) -> None:
    api.upload("data/x", "refused", bytes(size))
    fails["GetObject"] = error
    reply = api.get(f"/files/data/x/{target}/download".replace("//", "/"))
    assert reply.status == status
    if status == 503:
        assert reply.headers["retry-after"]
    else:
        assert reply.detail.startswith("S3 refuses: The ciphertext refers to a key that … does")
        assert "1234" not in reply.detail
    assert "content-disposition" not in reply.headers


@pytest.mark.parametrize("ranges", ["bytes=0-1", "bytes=0-1,5-6"])
def test_a_refusal_of_parts_of_a_file_is_the_answer(
    api: Api, fails: dict[str, Exception], ranges: str
) -> None:
    api.upload("data/x", "refused", b"0123456789")
    fails["GetObject"] = client_error("AccessDenied", 403)
    reply = api.get("/files/data/x/refused/download", headers={"Range": ranges})
    assert reply.status == 403


@REFUSALS
def test_a_refused_upload_says_so(
    api: Api, fails: dict[str, Exception], error: Exception, status: int
) -> None:
    fails["PutObject"] = error
    assert api.upload("data/x", "refused", b"1").status == status


def test_an_archived_object_is_refused_in_s3s_words(api: Api) -> None:
    api.upload("data/x", "warm", b"1")
    signed = urlsplit(api.get("/files/data/x/warm/url").json()["url"])
    bucket, _, key = signed.path.removeprefix("/").partition("/")
    client = boto3.client("s3", endpoint_url=f"http://{signed.netloc}", **CREDENTIALS)
    cold = key.removesuffix("warm") + "cold"
    client.put_object(Bucket=bucket, Key=cold, Body=b"2", StorageClass="GLACIER")
    reply = api.get("/files/data/x/cold/download")
    assert reply.status == 409
    reason = "The operation is not valid for the object's storage class"
    assert reply.detail == f"S3 refuses: {reason} (InvalidObjectState)"
    assert api.get("/files/data/x/warm/download").body == b"1"
