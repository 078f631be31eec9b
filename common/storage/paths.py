"""`UserPath`: the only kind of path that reaches a storage."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from string import hexdigits
from typing import Final, Self

from common.storage.errors import InvalidPath

PREDEFINED: Final = ("artifact", "config", "data", "log", "output")
"""The top-level directories that every user always has, sorted."""

MAX_NAME_BYTES: Final = 255
"""Longest file name on common file systems (`NAME_MAX`), in UTF-8 bytes."""

MAX_PATH_BYTES: Final = 900
"""Longest path: an S3 key holds 1024 bytes, including root prefix and user name."""

_MAX_WRITTEN: Final = 4_096
"""Longest path in characters as clients may write it, with redundant slashes."""

RESERVED_USER_NAME: Final = ".opencloud-staging"
"""Directory beside the users' trees that holds staged local uploads."""

CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
"""A control character (Unicode's category Cc)."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED: Final = {
    f"{high}{low}": chr(int(f"{high}{low}", 16)) for high in hexdigits for low in hexdigits
}


def check_name(name: str) -> str:
    """Return `name` if it can name one file or directory.

    Raises `InvalidPath` for an empty name, `.`, `..` (also percent-encoded), a slash, control
    characters, text that is not valid Unicode, and more than 255 bytes of UTF-8.
    """
    if not name:
        raise InvalidPath("a name must not be empty")
    if _is_plain(name):
        return name
    # before any check that reads each character: a client may send megabytes
    if len(name) > MAX_NAME_BYTES:
        raise InvalidPath(f"a name must not be longer than {MAX_NAME_BYTES} bytes")
    if _is_dots(name):
        raise InvalidPath("a name must not be '.' or '..'")
    if "/" in name:
        raise InvalidPath("a name must not hold a slash")
    if CONTROL.search(name):
        raise InvalidPath("a name must not hold control characters")
    if _SURROGATE.search(name):
        raise InvalidPath("a name must be valid Unicode")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidPath(f"a name must not be longer than {MAX_NAME_BYTES} bytes")
    return name


def _is_plain(name: str) -> bool:
    """Whether `name` is as nearly all are, and a good one: for a submission of very many."""
    return (
        len(name) <= MAX_NAME_BYTES
        and name.isascii()
        and name.isprintable()
        and name[0] not in ".%"
        and "/" not in name
    )


def _is_dots(name: str) -> bool:
    """Whether `name` is `.` or `..`, percent-encoded any number of times.

    One pass suffices: an escape is decoded as soon as it is complete, and may complete another.
    """
    decoded = ""
    for character in name:
        decoded += character
        while decoded[-3:-2] == "%" and (byte := _ESCAPED.get(decoded[-2:])) is not None:
            decoded = decoded[:-3] + byte
        if decoded[0] not in ".%":
            return False
    return decoded in {".", ".."}


@dataclass(frozen=True, slots=True)
class UserPath:
    """A path inside one user's tree, validated once at the edge (by `parse`).

    `parts` holds no empty, `.` or `..` segment; the root of the tree has no `parts`.
    `slash`: whether the path was written with a trailing slash, as directories are.
    """

    user: str
    parts: tuple[str, ...] = ()
    slash: bool = False

    @classmethod
    def parse(cls, user: str, text: str) -> Self:
        """Parse `text`, relative to `user`'s tree; empty segments are dropped.

        Raises `InvalidPath` if a segment is not a name (see `check_name`), or if the path is longer
        than `MAX_PATH_BYTES` (or is written with thousands of redundant slashes).
        """
        if len(text) > _MAX_WRITTEN:
            raise InvalidPath(f"a path must not be longer than {MAX_PATH_BYTES} bytes")
        parts = tuple(check_name(part) for part in text.split("/") if part)
        # ASCII has a byte for each character
        is_short = len(text) <= MAX_PATH_BYTES and text.isascii()
        if not is_short and len("/".join(parts).encode()) > MAX_PATH_BYTES:
            raise InvalidPath(f"a path must not be longer than {MAX_PATH_BYTES} bytes")
        return cls(user, parts, not parts or text.endswith("/"))

    def __str__(self) -> str:
        """The path as clients see it: relative to the tree, with the trailing slash, if any."""
        return "/".join(self.parts) + ("/" if self.slash and self.parts else "")

    def __truediv__(self, name: str) -> "UserPath":
        return UserPath.parse(self.user, f"{'/'.join(self.parts)}/{name}")

    @property
    def name(self) -> str:
        """Last segment; empty for the root."""
        return self.parts[-1] if self.parts else ""

    @property
    def parent(self) -> "UserPath":
        return UserPath(self.user, self.parts[:-1], slash=True)

    @property
    def as_directory(self) -> "UserPath":
        """The same path with a trailing slash."""
        return UserPath(self.user, self.parts, slash=True)

    @property
    def is_root(self) -> bool:
        return not self.parts

    @property
    def is_predefined(self) -> bool:
        """Whether this is one of the five directories that always exist."""
        return len(self.parts) == 1 and self.parts[0] in PREDEFINED

    @property
    def in_predefined(self) -> bool:
        """Whether this is, or is inside, one of the five predefined directories."""
        return bool(self.parts) and self.parts[0] in PREDEFINED

    @property
    def is_permanent(self) -> bool:
        """Whether this directory always exists: the root, or a predefined one."""
        return self.is_root or self.is_predefined

    def is_within(self, other: "UserPath") -> bool:
        """Whether this is strictly below `other`, in the same user's tree."""
        return (
            self.user == other.user
            and len(self.parts) > len(other.parts)
            and self.parts[: len(other.parts)] == other.parts
        )


def check_target(source: UserPath, target: UserPath) -> None:
    """Raise `InvalidPath` if the paths alone forbid moving `source` to `target`."""
    if source.user != target.user or not target.in_predefined:
        raise InvalidPath(f"the target must lie in one of {', '.join(PREDEFINED)}")
    if target.is_within(source):
        raise InvalidPath("the target must not lie inside the source")


@lru_cache(maxsize=1_024)
def is_user_name(name: str) -> bool:
    """Whether `name` can be the name of a user's directory, verbatim."""
    try:
        check_name(name)
    except InvalidPath:
        return False
    return name != RESERVED_USER_NAME


def relative_to(path: str, directory: Iterable[str]) -> str:
    """`path` (an `Entry.path`) relative to the directory whose parts are `directory`."""
    prefix = "".join(f"{part}/" for part in directory)
    return path[len(prefix) :]
