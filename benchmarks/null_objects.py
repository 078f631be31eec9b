"""What a store that keeps no bytes remembers of its objects: their sizes."""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice


@dataclass(frozen=True)
class NullObject:
    """`size` zeros; the ETag is bare, `modified` in seconds since the epoch."""

    size: int
    etag: str
    modified: float = field(default_factory=time.time)


class NullObjects:
    """Objects by key, and the multipart uploads that are under way, in one bucket."""

    def __init__(self) -> None:
        self._objects: dict[str, NullObject] = {}
        self._keys: list[str] | None = None
        self._uploads: dict[str, dict[int, int]] = {}
        self._numbers = count(1)

    def get(self, key: str) -> NullObject | None:
        return self._objects.get(key)

    def put(self, key: str, size: int) -> NullObject:
        self._keys = None
        made = self._objects[key] = NullObject(size, self.new_tag())
        return made

    def delete(self, key: str) -> None:
        self._keys = None
        self._objects.pop(key, None)

    def new_tag(self) -> str:
        """A validator that was never given before."""
        return f"{next(self._numbers):032x}"

    def begin(self) -> str:
        """Begin a multipart upload; returns its id."""
        upload = self.new_tag()
        self._uploads[upload] = {}
        return upload

    def add_part(self, upload: str, number: int, size: int) -> str:
        """Note a part; returns its ETag. Raises `KeyError` for an unknown upload."""
        self._uploads[upload][number] = size
        return self.new_tag()

    def complete(self, upload: str, key: str) -> NullObject:
        """An object as large as the parts are. Raises `KeyError` for an unknown upload."""
        return self.put(key, sum(self._uploads.pop(upload).values()))

    def abort(self, upload: str) -> None:
        self._uploads.pop(upload, None)

    @property
    def under_way(self) -> int:
        """How many multipart uploads were neither completed nor aborted."""
        return len(self._uploads)

    def below(
        self, prefix: str, delimiter: str, after: str = ""
    ) -> Iterator[tuple[str, NullObject | None]]:
        """Keys that start with `prefix` and sort after `after`, in order; those with a delimiter
        after the prefix stand together as one without an object (S3's `CommonPrefixes`)."""
        last = after if delimiter and after.endswith(delimiter) else None
        if self._keys is None:
            self._keys = sorted(self._objects)
        start = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
        for key in islice(self._keys, start, None):
            if not key.startswith(prefix):
                break
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end < 0:
                yield key, self._objects[key]
            elif (common := key[: end + len(delimiter)]) != last:
                last = common
                yield common, None
