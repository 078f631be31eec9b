"""Stand-in AWS: accounts whose tokens hold what the gateway reads, and the peer's files on S3."""

import base64
import json

import pytest

from deploy.sandbox import aws
from deploy.sandbox.cognito import USER, WORKER, create_user_pool
from tests.tools.sandbox.support import RunningPeer, StartPeer


def claims(token: str) -> dict[str, object]:
    middle = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))))


def test_tokens_hold_name_address_and_groups(aws_url: str) -> None:
    pool = create_user_pool(aws_url)
    for account in (USER, WORKER):
        held = claims(pool.id_token(account))
        assert held["cognito:username"] == held["email"] == account.email
        assert held["cognito:groups"] == list(account.groups)
        assert (held["aud"], held["token_use"]) == (pool.client_id, "id")


def test_a_secret_can_be_read_under_its_arn(aws_url: str) -> None:
    arn = aws.create_secret(aws_url, "key", '{"password": "x"}')
    found = aws.client("secretsmanager", aws_url).get_secret_value(SecretId=arn)
    assert found["SecretString"] == '{"password": "x"}'


@pytest.fixture
async def s3_peer(
    aws_url: str, start_peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> RunningPeer:
    for name, value in aws.environment(aws_url).items():
        monkeypatch.setenv(name, value)
    return await start_peer(filesystem="s3", bucket="bucket", root="user_data")


async def test_inputs_and_results_are_objects_on_s3(aws_url: str, s3_peer: RunningPeer) -> None:
    s3 = aws.client("s3", aws_url)
    aws.create_bucket(aws_url, "bucket")
    s3.put_object(Bucket="bucket", Key="user_data/u/data/f", Body=b"[1]")
    root = "s3://bucket/user_data"
    inputs = {"data/f": f"{root}/u/data/f", "data/gone": f"{root}/u/data/gone"}
    hostile = {"data/out": "s3://bucket/other/f", "data/bucket": "s3://other/user_data/f"}
    await s3_peer.submit(1, files_down={**inputs, **hostile}, root=root)
    _, job = await s3_peer.pull()
    place = f"/entries/{job['id']}"
    assert await s3_peer.call("GET", f"{place}/input?worker=w1&path=data/f") == (200, "[1]")
    for path, status in (("gone", 404), ("out", 403), ("bucket", 403)):
        got, _ = await s3_peer.call("GET", f"{place}/input?worker=w1&path=data/{path}")
        assert got == status
    await s3_peer.call("PUT", f"{place}/results/output?worker=w1&path=a/b", data=b"made")
    made = s3.get_object(Bucket="bucket", Key="user_data/u/output/train/a/b")
    assert made["Body"].read() == b"made"
