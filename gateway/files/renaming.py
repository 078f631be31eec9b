"""Rename: the order of the checks is part of the contract."""

from common.storage.errors import InvalidPath, PathConflict
from common.storage.paths import UserPath
from common.storage.protocol import Entry, Storage
from gateway.http.errors import Fault, Invalid, misnamed


async def rename(storage: Storage, source: UserPath, new: str, *, replace: bool) -> Entry:
    """Move `source` to the path that the client sent; returns its entry there.

    Raises what `Storage.rename` raises, but `Invalid` for an invalid target.
    """
    broken_rule = None
    try:
        target = _parse_target(source.user, new)
    except InvalidPath as error:
        # the storage refuses the root as well, but only after it has checked the source
        target, broken_rule = UserPath(source.user), error
    try:
        return await storage.rename(source, target, replace=replace)
    except InvalidPath as error:
        if target.is_within(source) and not (await storage.stat(source)).is_directory:
            raise PathConflict(f"'{source}' is not a directory") from error
        sentence = misnamed(new, broken_rule or error)
        raise Invalid(Fault(["body", "path"], sentence, "value_error")) from error


def _parse_target(user: str, new: str) -> UserPath:
    if new.startswith("/"):
        raise InvalidPath("the path must be relative to the tree, without a slash in front")
    target = UserPath.parse(user, new)
    if target.is_root:
        raise InvalidPath("the path must not be empty")
    return target
