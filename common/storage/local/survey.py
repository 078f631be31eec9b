"""What a submission has to know of a local tree: its input files, and which places are taken.

Blocking, like `tree`, and on an open tree throughout.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

from common.storage.errors import NotFound, UnusableName
from common.storage.local.tree import ABSENT, describe_in, open_directory, tree_of, walk_in
from common.storage.paths import UserPath
from common.storage.protocol import BATCH, Entry


def survey(
    root: str, inputs: Sequence[UserPath], places: Sequence[UserPath]
) -> Generator[tuple[list[tuple[int, list[Entry]]], list[bool] | None], None, None]:
    """Files at or below each of `inputs`, in the order of their paths, with that input's position.

    Yields batches of about `BATCH` files; the last one comes with what is said of `places`: for
    each whether it is a file, or a directory with a file at any depth. Where nothing is, no list
    is given; for an empty directory an empty one. All are in one tree. Raises
    `UnusableName` for a file whose name is not UTF-8, which nobody could ask for.

    A thread gives the interpreter's lock away at each system call, and a busy event loop lets it
    wait for it: so the tree is opened once, and what is most likely a directory is read as one.
    """
    batch: list[tuple[int, list[Entry]]] = []
    count = 0
    with open_directory(tree_of(root, [*inputs, *places][0].user), ()) as tree:
        for position, path in enumerate(inputs):
            for files in _files_of(tree, path):
                batch.append((position, files))
                count += len(files)
                if count >= BATCH:
                    yield batch, None
                    batch, count = [], 0
        yield batch, [_holds_files(tree, place) for place in places]


def _files_of(tree: int, path: UserPath) -> Iterator[list[Entry]]:
    is_directory = False
    try:
        for batch, _ in walk_in(tree, path):
            is_directory = True
            files = [entry for entry in batch if entry.size is not None]
            for entry in files:
                if "\ufffd" in entry.path:
                    _check_reachable(tree, path.user, entry.path)
            yield files
    except OSError as error:
        if error.errno not in ABSENT:
            raise
    if not is_directory:
        file = _file_at(tree, path)
        if file is not None:
            yield [file]


def _file_at(tree: int, path: UserPath) -> Entry | None:
    """The file at `path`, if there is one."""
    try:
        entry = describe_in(tree, path)
    except NotFound:
        return None
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return None
    return None if entry.is_directory else entry


def _check_reachable(tree: int, user: str, shown_path: str) -> None:
    """Raise `UnusableName` unless U+FFFD really is in the name on disk."""
    try:
        describe_in(tree, UserPath(user, tuple(shown_path.split("/"))))
    except (OSError, NotFound):
        raise UnusableName(f"the name of '{shown_path}' is not valid UTF-8") from None


def _holds_files(tree: int, path: UserPath) -> bool:
    try:
        if not describe_in(tree, path).is_directory:
            return True
        with closing(walk_in(tree, path)) as batches:
            return any(entry.size is not None for batch, _ in batches for entry in batch)
    except NotFound:
        return False
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return False
