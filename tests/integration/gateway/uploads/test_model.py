"""Uploads in any order of requests, against a model of what the service must know."""

import hashlib
import itertools
from dataclasses import dataclass, field

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

from tests.support.gateway import Api, on_both_storages
from tests.support.tus import Tus, checksum, repr_digest

BYTES = st.binary(max_size=40)


@dataclass
class Model:
    """What is known of one upload."""

    target: str
    path: str
    content: bytes
    is_announced: bool
    received: int = 0
    is_there: bool = True
    files: dict[str, bytes] = field(default_factory=dict)


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
        if not upload.is_there:
            assert reply.status == 404
        elif offset != upload.received:
            assert reply.status == 409
        elif offset + size > len(upload.content):
            assert reply.status == 413
        else:
            assert reply.status == 204, reply
            upload.received += size
            assert reply.headers["upload-offset"] == str(upload.received)
            is_whole = upload.received == len(upload.content)
            expected = repr_digest(upload.content) if is_whole else None
            assert reply.headers.get("repr-digest") == expected

    @rule(upload=uploads, size=st.integers(1, 40), right=st.booleans())
    def patch_checked(self, upload: Model, size: int, right: bool) -> None:
        body = upload.content[upload.received : upload.received + size]
        if not body or not upload.is_there:
            return
        sent = body if right else bytes(byte ^ 1 for byte in body)
        reply = self.tus.patch(upload.target, upload.received, sent, checksum(body))
        assert reply.status == (204 if right else 460), reply
        upload.received += len(body) if right else 0

    @rule(upload=uploads)
    def head(self, upload: Model) -> None:
        reply = self.tus.head(upload.target)
        assert reply.status == (200 if upload.is_there else 404)
        if upload.is_there:
            assert reply.headers["upload-offset"] == str(upload.received)
            assert reply.headers["upload-length"] == str(len(upload.content))

    @rule(upload=consumes(uploads))
    def terminate(self, upload: Model) -> None:
        assert self.tus.send("DELETE", upload.target).status == (204 if upload.is_there else 404)
        upload.is_there = False
        self.check_file(upload)
        assert self.tus.head(upload.target).status == 404

    @rule(upload=uploads)
    def check_file(self, upload: Model) -> None:
        reply = self.tus.api.get(f"/files/{upload.path}/download")
        if upload.received == len(upload.content):
            assert reply.body == upload.content
        else:
            assert reply.status == 404


@pytest.mark.slow
@on_both_storages
def test_uploads_are_what_was_sent_in_any_order_of_requests(api: Api) -> None:
    run_state_machine_as_test(
        type("BoundUploads", (Uploads,), {"tus": Tus(api)}),
        settings=settings(
            max_examples=15,
            stateful_step_count=20,
            suppress_health_check=list(HealthCheck),
        ),
    )
