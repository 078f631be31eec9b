"""What a store that keeps no bytes remembers of its objects: their sizes."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count


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
        self._uploads: dict[str, dict[int, int]] = {}
        self._numbers = count(1)

    def get(self, key: str) -> NullObject | None:
        return self._objects.get(key)

    def put(self, key: str, size: int) -> NullObject:
        made = self._objects[key] = NullObject(size, self.new_tag())
        return made

    def delete(self, key: str) -> None:
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

    def below(self, prefix: str, delimiter: str) -> Iterator[tuple[str, NullObject | None]]:
        """Keys that start with `prefix`, in order; those with a delimiter after it stand
        together as one prefix without an object (S3's `CommonPrefixes`)."""
        last = None
        for key in sorted(self._objects):
            if not key.startswith(prefix):
                continue
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end < 0:
                yield key, self._objects[key]
            elif (common := key[: end + len(delimiter)]) != last:
                last = common
                yield common, None
