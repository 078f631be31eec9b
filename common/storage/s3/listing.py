"""List directories: entries made of the keys below a prefix.

Presigned uploads and other tools can create any key. Listings omit keys that no path can address
(empty names, `.`, `..`): they could neither be opened nor safely be unpacked from an archive. The
directory that holds them is listed.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from operator import attrgetter

from common.storage.budget import FileCount
from common.storage.errors import NotFound, UnusableName
from common.storage.protocol import Entry
from common.storage.s3.bucket import Bucket, Page, entry_from_record
from common.storage.s3.keys import addressable


@dataclass(frozen=True, slots=True)
class Directory:
    """The prefix of a directory's keys, and its path as clients see it."""

    prefix: str
    shown: str


async def walk(
    bucket: Bucket, directory: Directory, *, recursive: bool, start_after: str, batch: int
) -> AsyncGenerator[list[Entry], None]:
    """Entries below a directory, sorted by path, about `batch` at a time.

    With `start_after`, those whose keys sort after it, and possibly a directory that contains it.
    Raises `NotFound` if no key begins with the directory's prefix.
    """
    delimiter = "" if recursive else "/"
    found = False
    here: list[str] = []
    async for page in bucket.pages(
        directory.prefix, delimiter, start_after=start_after, most=batch
    ):
        found = found or bool(page.objects or page.prefixes)
        yield _everything(directory, page, here) if recursive else _one_level(directory, page)
    if not found and not (start_after and await bucket.first_keys(directory.prefix, 1)):
        raise NotFound(f"there is no directory '{directory.shown}'")


def _one_level(directory: Directory, page: Page) -> list[Entry]:
    """Entries of a page with a delimiter: what is directly in the directory."""
    start, shown = len(directory.prefix), directory.shown
    entries = []
    for item in page.objects:
        name = item["Key"][start:]
        if addressable([name]):
            entries.append(entry_from_record(shown + name, item, "Size"))
    for inner in page.prefixes:
        name = inner[start:-1]
        if addressable([name]):
            entries.append(Entry(f"{shown}{name}/"))
    return sorted(entries, key=attrgetter("path"))


def _everything(directory: Directory, page: Page, here: list[str]) -> list[Entry]:
    """Entries of a page without a delimiter: each directory precedes what it holds.

    `here`: the directory of the last entry, carried from page to page.
    """
    start, shown = len(directory.prefix), directory.shown
    entries = []
    for item in page.objects:
        name = item["Key"][start:]
        *folders, last = name.split("/")
        reachable = addressable(folders)
        is_file = reachable == len(folders) and addressable([last])
        folders = folders[:reachable]
        if folders != here:
            # keys are sorted: those in one folder are adjacent
            entries += [
                Entry(shown + "".join(f"{folder}/" for folder in folders[:depth]))
                for depth in range(1, len(folders) + 1)
                if folders[:depth] != here[:depth]
            ]
            here[:] = folders
        if is_file:
            entries.append(entry_from_record(shown + name, item, "Size"))
    return entries


async def files_below(bucket: Bucket, directory: Directory, count: FileCount) -> list[Entry] | None:
    """All files below a directory, or None if no key begins with its prefix.

    Raises `UnusableName` for a file that no path can address, since the result must be complete,
    and `TooManyFiles` where `count` does.
    """
    files: list[Entry] | None = None
    async for page in bucket.pages(directory.prefix):
        before = len(files or ())
        for item in page.objects:
            files = [] if files is None else files
            name = item["Key"][len(directory.prefix) :]
            if not name or name.endswith("/"):
                continue
            parts = name.split("/")
            if addressable(parts) < len(parts):
                raise UnusableName(f"the stored key '{directory.shown}{name}' cannot be a path")
            files.append(entry_from_record(directory.shown + name, item, "Size"))
        count.add((files or [])[before:], visited=len(page.objects) + 1)
    return files
