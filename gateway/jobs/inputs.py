"""From the ids of a submission to the files that a worker downloads.

Ids name files or directories under `config/`, `data/`, `artifact/`. What is found is a snapshot of
names, not of bytes: a job fails if an input is deleted before a worker downloads it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.config.catalogue import Entrypoint
from common.runtime.computation import compute_in_thread
from common.storage.errors import InvalidPath, StorageError, StorageUnavailable, TooManyFiles
from common.storage.paths import UserPath, relative_to
from common.storage.protocol import Entry, Storage
from gateway.http.errors import MAX_FAULTS, Fault, misnamed
from gateway.jobs.errors import TooManyInputs, UnusableInput

_DIRECTORY: Final = {"config_id": "config", "data_ids": "data", "artifact_ids": "artifact"}

_UNFETCHABLE: Final = re.compile("[#?]|%[0-9A-Fa-f]{2}")

_MANY_FILES: Final = 2_000
"""Above this number, files are arranged in a thread."""


@dataclass(frozen=True, slots=True)
class Selection:
    """One id, the argument that holds it, and the path that it names."""

    argument: str
    id: str
    path: UserPath

    def __str__(self) -> str:
        return f"{self.argument} '{self.id}'"

    @property
    def not_found(self) -> str:
        """The sentence for an input that does not exist: where it was looked for, and why there."""
        directory = f"{_DIRECTORY[self.argument]}/"
        return (
            f"The input '{directory}{self.id}' does not exist:"
            f" {self.argument} is relative to '{directory}'"
        )


def parse_selections(
    user_id: str, files_down: Mapping[str, Any], entrypoint: Entrypoint | None
) -> tuple[list[Selection], list[Fault]]:
    """The distinct selections of a submission, and their faults, `MAX_FAULTS` at most.

    An id is None where it was not text, which the schema has reported.
    """
    selections: dict[tuple[str, UserPath], Selection] = {}
    faults: list[Fault] = []
    for argument, ids, in_list in _given(files_down):
        valid: set[str] = set()
        for index, name in enumerate(ids):
            if name is None or name in valid:
                continue
            place: list[str | int] = ["body", "attributes", "files_down", argument]
            if in_list:
                place.append(index)
            try:
                path = UserPath.parse(user_id, f"{_DIRECTORY[argument]}/{_checked(name)}")
            except InvalidPath as error:
                faults.append(Fault(place, misnamed(name, error), "value_error"))
                if len(faults) == MAX_FAULTS:
                    return [*selections.values()], faults
                continue
            valid.add(name)
            selections.setdefault((argument, path), Selection(argument, name, path))
        if ids and entrypoint is not None and argument not in entrypoint.files_down:
            allowed = ", ".join(entrypoint.files_down) or "none"
            sentence = f"Value error, this entrypoint takes no {argument}, allowed: {allowed}"
            faults.append(Fault(["body", "attributes"], sentence, "value_error"))
    return [*selections.values()], faults


def _checked(name: str) -> str:
    if not name.strip("/"):
        raise InvalidPath("an id must name a file or a directory")
    return name


def count_ids(files_down: Mapping[str, Any]) -> int:
    """The number of ids in a submission."""
    return sum(len(ids) for _, ids, _ in _given(files_down))


def _given(files_down: Mapping[str, Any]) -> Iterator[tuple[str, list[str | None], bool]]:
    """Each argument, its ids, and whether they came as a list."""
    config_id = files_down.get("config_id")
    yield "config_id", [] if config_id is None else [config_id], False
    for argument in ("data_ids", "artifact_ids"):
        yield argument, files_down.get(argument) or [], True


async def collect(
    storage: Storage,
    user_id: str,
    selections: list[Selection],
    entrypoint: Entrypoint,
    results: list[UserPath],
    *,
    limit: int,
) -> tuple[dict[str, str], list[bool]]:
    """The selected files as path in the container → storage URI; and for each of `results`
    whether files exist there.

    Raises `UnusableInput`, and `TooManyInputs` for more than `limit` files or selections (0: no
    limit).
    """
    check_count(selections, limit)
    paths = [selection.path for selection in selections]
    found, taken = await look_up(storage, paths, results, most=limit, too_many=too_many(limit))
    tree = storage.uri(UserPath(user_id))
    inputs = Inputs(selections, found, entrypoint, tree, limit)
    if sum(map(len, filter(None, found))) > _MANY_FILES:
        return await compute_in_thread(inputs.arrange), taken
    return inputs.arrange(), taken


async def look_up(
    storage: Storage,
    paths: Sequence[UserPath],
    results: Sequence[UserPath],
    *,
    most: int,
    too_many: TooManyInputs,
) -> tuple[list[list[Entry] | None], list[bool]]:
    """The files at each of the paths, and whether files exist at each of `results`.

    Raises `UnusableInput`, and `too_many` for more than `most` files (0: no limit).
    """
    try:
        return await storage.survey(paths, results, most=most or None)
    except StorageUnavailable:
        raise
    except TooManyFiles as error:
        raise too_many from error
    except StorageError as error:
        raise UnusableInput(str(error)) from error


def check_count(selections: Sequence[Selection], limit: int) -> None:
    """Raise `TooManyInputs` for more than `limit` selections, before a million is looked up."""
    if limit and len(selections) > limit:
        raise too_many(limit)


def too_many(limit: int) -> TooManyInputs:
    return TooManyInputs(f"A job may have at most {limit} input files")


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files found for each selection; `tree` is the URI of the user's tree."""

    selections: Sequence[Selection]
    found: Sequence[list[Entry] | None]
    entrypoint: Entrypoint
    tree: str
    limit: int

    def arrange(self) -> dict[str, str]:
        """Path in the container → storage URI. Raises as `collect` does."""
        uris: dict[str, str] = {}
        for selection, entries in zip(self.selections, self.found, strict=True):
            if entries is None:
                raise UnusableInput(selection.not_found)
            for entry in entries:
                place, uri = self._place(selection, entry), f"{self.tree}/{entry.path}"
                if uris.setdefault(place, uri) != uri:
                    raise self._clash(place, selection)
            if self.limit and len(uris) > self.limit:
                raise too_many(self.limit)
        self._check_parents(uris)
        return uris

    def _place(self, selection: Selection, entry: Entry) -> str:
        if _UNFETCHABLE.search(entry.path):
            raise UnusableInput(
                f"The input file '{entry.path}' has a name that workers cannot fetch:"
                " it holds '#', '?' or '%' with two hexadecimal digits"
            )
        root = self.entrypoint.files_down[selection.argument].rstrip("/")
        chosen = selection.path.parts
        name = chosen[-1] if entry.path == "/".join(chosen) else relative_to(entry.path, chosen)
        return f"{root}/{name}"

    def _check_parents(self, uris: Mapping[str, str]) -> None:
        """Raise `UnusableInput` for a file where another one needs a directory."""
        for place in uris:
            parent = place
            while (cut := parent.rfind("/")) > 0:
                parent = parent[:cut]
                if parent in uris:
                    raise self._clash(parent, self._source(place))

    def _clash(self, place: str, second: Selection) -> UnusableInput:
        return UnusableInput(
            f"The inputs {self._source(place)} and {second} hold different files"
            f" for the same place '{place}'"
        )

    def _source(self, place: str) -> Selection:
        """The first selection with a file for `place`."""
        return next(
            selection
            for selection, entries in zip(self.selections, self.found, strict=True)
            if any(self._place(selection, entry) == place for entry in entries or ())
        )
