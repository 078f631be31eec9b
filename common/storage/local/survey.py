"""What a submission needs to know about a local tree: its input files, and which places are taken.

Blocking, like `tree`; the tree is opened once.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from time import monotonic

from common.storage.budget import FileCount
from common.storage.errors import NotFound, UnusableName
from common.storage.local.tree import (
    STEP,
    entry_at,
    ignore_absent,
    open_directory,
    tree_of,
    walk,
)
from common.storage.paths import UserPath
from common.storage.protocol import Entry


def survey(
    root: str, inputs: Sequence[UserPath], places: Sequence[UserPath], most: int | None
) -> Generator[tuple[list[tuple[int, list[Entry]]], list[bool] | None], None, None]:
    """The files at or below each of `inputs`, sorted by path, with that input's position.

    Yields what was found whenever `STEP` has passed, be it nothing. The last batch carries one
    answer per place: whether it is a file, or a directory with a file at any depth. An empty
    directory yields an empty list, an input that does not exist yields none. All paths are in one
    tree. Raises `UnusableName` for a file whose name is not UTF-8, since nobody could request it,
    and `TooManyFiles`.

    A thread releases the interpreter's lock at each system call, and a busy event loop makes it
    wait to get it back. To save calls, each input is read as a directory first.
    """
    batch: list[tuple[int, list[Entry]]] = []
    found, ends = FileCount(most), monotonic() + STEP
    with open_directory(tree_of(root, [*inputs, *places][0].user), ()) as tree:
        for position, path in enumerate(inputs):
            for files in chain(_files_of(tree, path, found), (None,)):
                if files is not None:
                    batch.append((position, files))
                if monotonic() > ends:
                    yield batch, None
                    batch, ends = [], monotonic() + STEP
        with _Parents(tree) as parents:
            yield batch, [parents.has(place) and _holds_files(tree, place) for place in places]


class _Parents(ExitStack):
    """The directories of places, each opened once: a batch of jobs asks for hundreds of names in
    the same three, most of which are free."""

    def __init__(self, tree: int) -> None:
        super().__init__()
        self._tree = tree
        self._opened: dict[tuple[str, ...], int] = {}

    def has(self, place: UserPath) -> bool:
        """Whether there is anything at `place`."""
        if place.is_root:
            return True
        parts = place.parts[:-1]
        with ignore_absent:
            if parts not in self._opened:
                self._opened[parts] = self.enter_context(open_directory(self._tree, parts))
            os.stat(place.name, dir_fd=self._opened[parts], follow_symlinks=False)
            return True
        return False


def _files_of(tree: int, path: UserPath, found: FileCount) -> Iterator[list[Entry]]:
    is_directory = False
    with ignore_absent:
        for batch, _ in walk(tree, path):
            is_directory = True
            files = [entry for entry in batch if entry.size is not None]
            found.add(files, visited=len(batch) + 1)
            for entry in files:
                if "\ufffd" in entry.path:
                    _check_reachable(tree, path.user, entry.path)
            yield files
    if is_directory:
        return
    with ignore_absent:
        entry = entry_at(tree, path)
        if not entry.is_directory:
            found.add([entry], visited=1)
            yield [entry]


def _check_reachable(tree: int, user: str, shown_path: str) -> None:
    """Raise `UnusableName` unless the name on disk itself contains U+FFFD."""
    try:
        entry_at(tree, UserPath(user, tuple(shown_path.split("/"))))
    except (OSError, NotFound):
        raise UnusableName(f"the name of '{shown_path}' is not valid UTF-8") from None


def _holds_files(tree: int, path: UserPath) -> bool:
    with ignore_absent:
        if not entry_at(tree, path).is_directory:
            return True
        with closing(walk(tree, path)) as batches:
            return any(entry.size is not None for batch, _ in batches for entry in batch)
    return False
