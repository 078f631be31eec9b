"""S3 keys of paths: `<root>/<user>/<path>`, with a slash at the end for a directory."""

import re
from collections.abc import Sequence
from typing import Final

from common.storage.errors import InvalidPath
from common.storage.paths import UserPath, is_user_name

MAX_KEY_BYTES: Final = 1024

_UNFIT_FOR_XML = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")


class Keys:
    """Keys below a root prefix, which may be empty.

    It is spelled as in the settings: the keys of `/data` begin with a slash.
    """

    def __init__(self, root: str) -> None:
        self.start = f"{root.rstrip('/')}/" if root else ""

    def tree(self, user: str) -> str:
        """Prefix of the keys of `user`. Raises `InvalidPath` if no directory can have this name."""
        if not is_user_name(user):
            raise InvalidPath("the user's name cannot be the name of a directory")
        return f"{self.start}{user}/"

    def file(self, path: UserPath) -> str:
        return self._checked(self.tree(path.user) + "/".join(path.parts))

    def directory(self, path: UserPath) -> str:
        """Prefix of everything in the directory, and key of its marker object."""
        return self._checked(self.tree(path.user) + "".join(f"{part}/" for part in path.parts))

    @staticmethod
    def _checked(key: str) -> str:
        if len(key.encode()) > MAX_KEY_BYTES:
            raise InvalidPath("the path is longer than S3 can hold")
        return key


def addressable(names: Sequence[str]) -> int:
    """Number of leading names that a path can hold: S3 also takes empty names and dots."""
    for position, name in enumerate(names):
        if name in {"", ".", ".."}:
            return position
    return len(names)


def cut(key: str) -> str:
    """The key, cut to the length that S3 can hold; the result sorts before a longer key."""
    return key.encode()[:MAX_KEY_BYTES].decode(errors="ignore")


def fits_in_xml(key: str) -> bool:
    """Whether an XML request body can name the key; a URL can name any."""
    return not _UNFIT_FOR_XML.search(key)
