"""The application configuration in S3, played by a server that has one object."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest

from common.config import application_source
from common.config.applications import Applications
from common.config.catalogue import InvalidApplications
from deploy.sandbox import aws
from devtools.waiting import eventually
from tests.support.local_server import LocalServer
from tests.unit.common.config.test_applications import dump, names, tree


class Bucket(LocalServer):
    """One object at `/conf/apps.yaml`; None: deleted."""

    content: bytes | None = b""

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        assert path == "/conf/apps.yaml"
        if self.content is None:
            return 404, "", b"<Error><Code>NoSuchKey</Code></Error>"
        etag = f'"{hash(self.content)}"'
        known = headers["If-None-Match"] == etag
        return 304 if known else 200, etag, b"" if known else self.content


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    bucket = Bucket()
    for name, value in aws.environment(bucket.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(application_source, "_S3_CHECK_EVERY", 0.0)
    # a slow machine takes long to make a client
    monkeypatch.setattr(application_source, "_S3_TIMEOUT", 60.0)
    yield bucket
    bucket.close()


@pytest.fixture
async def applications(bucket: Bucket) -> AsyncIterator[Applications]:
    bucket.content = dump(tree())
    applications = Applications("s3://conf/apps.yaml")
    await applications.load()
    yield applications
    await applications.close()


async def become(applications: Applications, *expected: str) -> None:
    """S3 may take longer than a caller waits for it."""

    async def are_there() -> bool:
        return await names(applications) == list(expected)

    await eventually(are_there)


def test_s3_is_asked_often_enough_for_a_change_to_count_within_five_seconds() -> None:
    assert application_source._S3_CHECK_EVERY + application_source._S3_TIMEOUT < 5.0


async def test_a_changed_object_counts(bucket: Bucket, applications: Applications) -> None:
    assert await names(applications) == ["app"]
    bucket.content = dump({"other": tree()["app"]})
    await become(applications, "other")


async def test_s3_is_not_asked_again_at_once(
    bucket: Bucket, applications: Applications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application_source, "_S3_CHECK_EVERY", 60.0)
    for _ in range(5):
        await names(applications)
    assert bucket.asked == 1


@pytest.mark.parametrize("edit", [b"app: [", b"app: 3", b"", None])
async def test_an_invalid_edit_leaves_the_last_valid_one_in_force(
    bucket: Bucket, applications: Applications, edit: bytes | None
) -> None:
    bucket.content = edit
    for _ in range(3):
        assert await names(applications) == ["app"]
    bucket.content = dump({"other": tree()["app"]})
    await become(applications, "other")


async def test_an_s3_that_does_not_answer_is_given_up_and_asked_again(
    applications: Applications, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def never_answers(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(application_source, "_S3_TIMEOUT", 0.05)
    monkeypatch.setattr(application_source, "fetch_object", never_answers)

    async def is_asked_again() -> bool:
        assert await names(applications) == ["app"]
        return asked > 1

    await eventually(is_asked_again)


async def test_callers_do_not_queue_for_an_s3_that_does_not_answer(
    bucket: Bucket, applications: Applications
) -> None:
    bucket.hangs = True
    async with asyncio.timeout(application_source._S3_TIMEOUT / 2):
        found = await asyncio.gather(*(names(applications) for _ in range(6)))
    assert found == [["app"]] * 6
    await eventually(lambda: bucket.asked == 2)


async def test_a_missing_object_at_start_names_the_variable(bucket: Bucket) -> None:
    bucket.content = None
    with pytest.raises(InvalidApplications, match=r"APPLICATION_CONFIG_FILE: s3://conf/apps\.yaml"):
        await Applications("s3://conf/apps.yaml").load()
