"""Rename: the order of the checks is part of the contract."""

from contextlib import aclosing

from common.storage.errors import (
    DirectoryNotEmpty,
    InvalidPath,
    NotFound,
    PathConflict,
    PredefinedDirectory,
)
from common.storage.paths import UserPath
from common.storage.protocol import Entry, Storage
from gateway.http.errors import Fault, Invalid, misnamed


async def rename(storage: Storage, source: UserPath, new: str, *, replace: bool) -> Entry:
    """Move `source` to the path that the client sent; returns its entry there.

    Raises what `Storage.rename` raises, but `Invalid` for an invalid target.
    """
    try:
        target = _parse_target(source.user, new)
    except InvalidPath as error:
        await _check_source(storage, source)
        raise _invalid(new, error) from error
    try:
        return await storage.rename(source, target, replace=replace)
    except InvalidPath as error:
        if target.is_within(source) and not (await storage.stat(source)).is_directory:
            raise PathConflict(f"'{source}' is not a directory") from error
        raise _invalid(new, error) from error


def _parse_target(user: str, new: str) -> UserPath:
    if new.startswith("/"):
        raise InvalidPath("the path must be relative to the tree, without a slash in front")
    target = UserPath.parse(user, new)
    if target.is_root:
        raise InvalidPath("the path must not be empty")
    return target


async def _check_source(storage: Storage, source: UserPath) -> None:
    """Raise the refusals of the source, which take precedence over an invalid target."""
    if source.is_root:
        raise DirectoryNotEmpty(str(source))
    if not (await storage.stat(source)).is_directory:
        return
    try:
        async with aclosing(storage.walk(source, recursive=False, batch=1)) as found:
            async for _ in found:
                raise DirectoryNotEmpty(str(source))
    except NotFound:
        return
    if source.is_predefined:
        raise PredefinedDirectory(str(source))


def _invalid(new: str, error: InvalidPath) -> Invalid:
    return Invalid(Fault(["body", "path"], misnamed(new, error), "value_error"))
