"""Users take turns within the files whose digests are computed."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from common.storage.protocol import Entry, OpenFile
from gateway.files.digests import service
from gateway.files.digests.service import Digests
from gateway.http.budgets import Budget
from gateway.http.shares import Shares


class File:
    """Notes whose bytes are read."""

    def __init__(self, owner: str, content: bytes, reads: list[str]) -> None:
        self.entry = Entry("data/f", len(content))
        self._owner = owner
        self._content = content
        self._reads = reads

    async def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        self._reads.append(self._owner)
        await asyncio.sleep(0)
        yield self._content[offset : offset + length]


async def test_a_long_file_of_one_user_lets_those_of_others_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "_TURN", 2)
    budget = Budget(slots=1, per_caller=1, waiting=9, longest_wait=10.0)
    unused: Any = None
    digests = Digests(unused, unused, unused, Shares({"digest": budget}), computes=True)
    reads: list[str] = []
    contents = {"ada": b"0123456", "bob": b"012"}
    files = {owner: File(owner, content, reads) for owner, content in contents.items()}
    sums = await asyncio.gather(
        *(digests._sum(owner, cast("OpenFile", file)) for owner, file in files.items())
    )
    assert reads == ["ada", "bob", "ada", "bob", "ada", "ada"]
    assert sums == [hashlib.sha256(content).hexdigest() for content in contents.values()]
