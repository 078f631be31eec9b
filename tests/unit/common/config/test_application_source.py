"""The application configuration in S3, played by the smallest server that has one object."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from common.config import application_source
from common.config.applications import Applications, InvalidApplications
from devtools.waiting import eventually
from tests.unit.common.config.test_applications import tree


class Bucket:
    """One object at `/conf/apps.yaml`; None: deleted. While it hangs, nobody gets an answer."""

    def __init__(self) -> None:
        self.content: bytes | None = b""
        self.asked = 0
        self.hangs = threading.Event()
        self._goes_on = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                if outer.hangs.is_set():
                    outer._goes_on.wait(30)
                    return
                status, body, etag = outer._answer(self.path, self.headers["If-None-Match"])
                self.send_response(status)
                self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _answer(self, path: str, known: str | None) -> tuple[int, bytes, str]:
        assert path == "/conf/apps.yaml"
        if self.content is None:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>", ""
        etag = f'"{hash(self.content)}"'
        return (304, b"", etag) if known == etag else (200, self.content, etag)

    def put(self, content: object) -> None:
        self.content = content if isinstance(content, bytes) else yaml.safe_dump(content).encode()

    def close(self) -> None:
        self._goes_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    bucket = Bucket()
    for name, value in {
        "AWS_ENDPOINT_URL": bucket.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(application_source, "_S3_CHECK_EVERY", 0.0)
    yield bucket
    bucket.close()


@pytest.fixture
async def applications(bucket: Bucket) -> AsyncIterator[Applications]:
    bucket.put(tree())
    applications = Applications("s3://conf/apps.yaml")
    await applications.load()
    yield applications
    await applications.close()


async def names(applications: Applications) -> list[str]:
    return list((await applications.current()).entrypoints)


async def become(applications: Applications, *expected: str) -> None:
    """S3 may take longer than anybody waits for it."""

    async def are_there() -> bool:
        return await names(applications) == list(expected)

    await eventually(are_there)


def test_s3_is_asked_often_enough_for_a_change_to_count_within_five_seconds() -> None:
    assert application_source._S3_CHECK_EVERY + application_source._S3_TIMEOUT < 5.0


async def test_a_changed_object_counts(bucket: Bucket, applications: Applications) -> None:
    assert await names(applications) == ["app"]
    bucket.put({"other": tree()["app"]})
    await become(applications, "other")


async def test_s3_is_not_asked_again_at_once(
    bucket: Bucket, applications: Applications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application_source, "_S3_CHECK_EVERY", 60.0)
    for _ in range(5):
        await names(applications)
    assert bucket.asked == 1


@pytest.mark.parametrize("edit", [b"app: [", b"app: 3", b"", None])
async def test_nonsense_leaves_the_last_good_one_in_force(
    bucket: Bucket, applications: Applications, edit: bytes | None
) -> None:
    bucket.content = edit
    for _ in range(3):
        assert await names(applications) == ["app"]
    bucket.put({"other": tree()["app"]})
    await become(applications, "other")


async def test_an_s3_that_does_not_answer_is_given_up_and_asked_again(
    bucket: Bucket, applications: Applications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application_source, "_S3_TIMEOUT", 0.1)
    bucket.hangs.set()

    async def is_asked_again() -> bool:
        assert await names(applications) == ["app"]
        return bucket.asked > 2

    await eventually(is_asked_again)


async def test_an_s3_that_does_not_answer_holds_up_nobody_behind_another(
    bucket: Bucket, applications: Applications
) -> None:
    bucket.hangs.set()
    async with asyncio.timeout(application_source._S3_TIMEOUT):
        found = await asyncio.gather(*(names(applications) for _ in range(6)))
    assert found == [["app"]] * 6
    await eventually(lambda: bucket.asked == 2)


async def test_a_missing_object_at_start_names_the_variable(bucket: Bucket) -> None:
    bucket.content = None
    with pytest.raises(InvalidApplications, match=r"APPLICATION_CONFIG_FILE: s3://conf/apps\.yaml"):
        await Applications("s3://conf/apps.yaml").load()
