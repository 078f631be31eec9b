"""Directories out of keys: what stands below a prefix, as entries.

Presigned uploads and other tools can put any key into a bucket. What no path can address (empty
names, `.`, `..`) is left out of listings: shown, it could neither be opened nor be unpacked from
an archive safely. The directory that holds it is shown.
"""

from collections.abc import AsyncGenerator

from common.storage.errors import NotFound, UnusableName
from common.storage.protocol import Entry
from common.storage.s3_bucket import Bucket, describe
from common.storage.s3_keys import addressable


async def one_level(bucket: Bucket, prefix: str, shown: str) -> AsyncGenerator[Entry, None]:
    """Entries directly below `prefix`, their paths beginning with `shown`.

    Raises `NotFound` if no key begins with it.
    """
    found = False
    async for page in bucket.pages(prefix, "/"):
        found = found or bool(page.objects or page.prefixes)
        for item in page.objects:
            name = item["Key"][len(prefix) :]
            if addressable([name]):
                yield describe(shown + name, item, "Size")
        for inner in page.prefixes:
            name = inner[len(prefix) : -1]
            if addressable([name]):
                yield Entry(f"{shown}{name}/")
    if not found:
        raise NotFound(f"there is no directory '{shown}'")


async def all_below(bucket: Bucket, prefix: str, shown: str) -> AsyncGenerator[Entry, None]:
    """Like `one_level`, at any depth, each directory before what it holds."""
    found = False
    here: list[str] = []
    async for page in bucket.pages(prefix):
        found = found or bool(page.objects)
        for item in page.objects:
            *folders, name = item["Key"][len(prefix) :].split("/")
            reachable = addressable(folders)
            is_file = reachable == len(folders) and addressable([name])
            folders = folders[:reachable]
            # Keys come sorted: all that share a folder stand together.
            known = _common(here, folders)
            for depth in range(known + 1, len(folders) + 1):
                yield Entry(shown + "".join(f"{folder}/" for folder in folders[:depth]))
            here = folders
            if is_file:
                yield describe(shown + item["Key"][len(prefix) :], item, "Size")
    if not found:
        raise NotFound(f"there is no directory '{shown}'")


def _common(one: list[str], other: list[str]) -> int:
    """How many leading names are the same."""
    for depth, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return depth
    return min(len(one), len(other))


async def files_below(bucket: Bucket, prefix: str, shown: str) -> list[Entry] | None:
    """All files below `prefix`, or None if no key begins with it.

    Raises `UnusableName` for a file that no path can address: leaving it out would be a lie.
    """
    files: list[Entry] | None = None
    async for page in bucket.pages(prefix):
        for item in page.objects:
            files = [] if files is None else files
            name = item["Key"][len(prefix) :]
            if not name or name.endswith("/"):
                continue
            parts = name.split("/")
            if addressable(parts) < len(parts):
                raise UnusableName(f"the stored key '{shown}{name}' cannot be a path")
            files.append(describe(shown + name, item, "Size"))
    return files
