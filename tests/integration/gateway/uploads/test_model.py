"""Uploads in any order of requests, against a model of what the service must know."""

import hashlib
import itertools
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    rule,
    run_state_machine_as_test,
)

from tests.support.gateway import Api
from tests.support.tus import Tus, checksum, cut_portion, expire, repr_digest

BYTES = st.binary(max_size=40)


@dataclass
class Model:
    """What is known of one upload."""

    target: str
    path: str
    content: bytes
    is_announced: bool
    received: int = 0
    missing: int = 0
    """The status of what is not there any more: 404 or 410."""

    @property
    def is_whole(self) -> bool:
        return self.received == len(self.content)

    @property
    def left(self) -> bytes:
        return self.content[self.received :]


_numbers = itertools.count()


class Uploads(RuleBasedStateMachine):
    """Requests of one client; `tus` is set by the test."""

    tus: Tus
    uploads = Bundle("uploads")

    @rule(target=uploads, content=BYTES, first=st.integers(-1, 40), announced=st.booleans())
    def create(self, content: bytes, first: int, announced: bool) -> Model:
        path = f"data/m/{next(_numbers)}"
        sha256 = {"sha256": hashlib.sha256(content).hexdigest()} if announced else {}
        body = content[:first] if 0 <= first <= len(content) else None
        reply = self.tus.create(len(content), path, body, **sha256)
        assert reply.status == 201, reply
        target = reply.headers["location"].removeprefix(self.tus.api.gateway.base)
        return Model(target, path, content, announced, len(body or b""))

    @rule(upload=uploads, size=st.integers(0, 45), shift=st.sampled_from([0, 0, 0, -1, 1]))
    def patch(self, upload: Model, size: int, shift: int) -> None:
        offset = max(0, upload.received + shift)
        body = (upload.content + bytes(50))[offset : offset + size]
        reply = self.tus.patch(upload.target, offset, body)
        if upload.missing:
            assert reply.status == upload.missing
        elif offset != upload.received:
            assert reply.status == 409
        elif offset + size > len(upload.content):
            assert reply.status == 413
        else:
            assert reply.status == 204, reply
            upload.received += size
            assert reply.headers["upload-offset"] == str(upload.received)
            expected = repr_digest(upload.content) if upload.is_whole else None
            assert reply.headers.get("repr-digest") == expected

    @rule(upload=uploads, size=st.integers(1, 40), right=st.booleans())
    def patch_checked(self, upload: Model, size: int, right: bool) -> None:
        body = upload.left[:size]
        if not body or upload.missing:
            return
        sent = body if right else altered(body)
        reply = self.tus.patch(upload.target, upload.received, sent, checksum(body))
        assert reply.status == (204 if right else 460), reply
        upload.received += len(body) if right else 0

    @rule(upload=uploads, more=st.integers(0, 2))
    def patch_chunked(self, upload: Model, more: int) -> None:
        body = upload.left + bytes(more)
        if not body or upload.missing:
            return
        reply = self.tus.patch_chunked(upload.target, upload.received, body)
        assert reply.status == (413 if more else 204), reply
        upload.received += 0 if more else len(body)

    @rule(upload=uploads, size=st.integers(1, 39))
    def cut(self, upload: Model, size: int) -> None:
        if upload.missing or size >= len(upload.left):
            return
        cut_portion(self.tus, upload.target, upload.received, upload.left, size)
        upload.received += size

    @rule(upload=uploads)
    def send_another_file(self, upload: Model) -> None:
        if not upload.left or upload.missing or not upload.is_announced:
            return
        reply = self.tus.patch(upload.target, upload.received, altered(upload.left))
        assert reply.status == 460
        upload.missing = 404

    @rule(upload=uploads)
    def head(self, upload: Model) -> None:
        reply = self.tus.head(upload.target)
        assert reply.status == (upload.missing or 200)
        if not upload.missing:
            assert reply.headers["upload-offset"] == str(upload.received)
            assert reply.headers["upload-length"] == str(len(upload.content))

    @rule(upload=uploads)
    def expire(self, upload: Model) -> None:
        if not upload.missing:
            expire(self.tus.api.gateway, upload.target)
            upload.missing = 410

    @rule(upload=consumes(uploads))
    def terminate(self, upload: Model) -> None:
        status = self.tus.send("DELETE", upload.target).status
        assert status == (upload.missing or 204)
        upload.missing = upload.missing or 404
        self.check_file(upload)
        assert self.tus.head(upload.target).status == upload.missing

    @rule(upload=uploads)
    def check_file(self, upload: Model) -> None:
        reply = self.tus.api.get(f"/files/{upload.path}/download")
        if upload.is_whole:
            assert reply.body == upload.content
        else:
            assert reply.status == 404


def altered(content: bytes) -> bytes:
    return bytes(byte ^ 1 for byte in content)


@pytest.mark.slow
@pytest.mark.parametrize("gateway", ["sqlite", "postgresql", "s3"], indirect=True, scope="session")
def test_uploads_are_what_was_sent_in_any_order_of_requests(api: Api) -> None:
    run_state_machine_as_test(
        type("BoundUploads", (Uploads,), {"tus": Tus(api)}),
        settings=settings(
            max_examples=20,
            stateful_step_count=20,
            suppress_health_check=list(HealthCheck),
        ),
    )
