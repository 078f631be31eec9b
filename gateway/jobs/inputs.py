"""From the ids of a submission to the files that a worker downloads.

Ids name files or directories under `config/`, `data/`, `artifact/`. What is found is a snapshot of
names, not of bytes: an input that is deleted before a worker pulls the job makes it fail there.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from common.config.applications import Entrypoint
from common.storage.errors import InvalidPath, StorageError, StorageUnavailable
from common.storage.paths import UserPath, relative_to
from common.storage.protocol import Entry, Storage
from gateway.http.errors import MAX_FAULTS, Fault, Refused, TooLarge, misnamed

_DIRECTORY: Final = {"config_id": "config", "data_ids": "data", "artifact_ids": "artifact"}

_UNFETCHABLE: Final = frozenset("#?%")

_MANY: Final = 2_000
"""More files than this are arranged in a thread."""


@dataclass(frozen=True, slots=True)
class Selection:
    """One id, the argument that it is given for, and where it lies."""

    argument: str
    id: str
    path: UserPath

    def __str__(self) -> str:
        return f"{self.argument} '{self.id}'"


def parse_selections(
    user_id: str, files_down: Mapping[str, Any], entrypoint: Entrypoint | None
) -> tuple[list[Selection], list[Fault]]:
    """The selections of a submission, and what is wrong with them: at most `MAX_FAULTS` things.

    An id that is None was no text: the schema has reported it.
    """
    selections: list[Selection] = []
    faults: list[Fault] = []
    for argument, ids, in_list in _given(files_down):
        for index, name in enumerate(ids):
            if name is None:
                continue
            place: list[str | int] = ["body", "attributes", "files_down", argument]
            if in_list:
                place.append(index)
            try:
                path = UserPath.parse(user_id, f"{_DIRECTORY[argument]}/{_checked(name)}")
            except InvalidPath as error:
                faults.append(Fault(place, misnamed(name, error), "value_error"))
                if len(faults) == MAX_FAULTS:
                    return selections, faults
                continue
            selections.append(Selection(argument, name, path))
        if ids and entrypoint is not None and argument not in entrypoint.files_down:
            allowed = ", ".join(entrypoint.files_down) or "none"
            faults.append(
                Fault(
                    ["body", "attributes"],
                    f"Value error, this entrypoint takes no {argument}, allowed: {allowed}",
                    "value_error",
                )
            )
    return selections, faults


def count_ids(files_down: Mapping[str, Any]) -> int:
    """How many ids a submission gives."""
    return sum(len(ids) for _, ids, _ in _given(files_down))


def _given(files_down: Mapping[str, Any]) -> Iterator[tuple[str, list[str | None], bool]]:
    """Argument, its ids, and whether they came as a list."""
    config_id = files_down.get("config_id")
    yield "config_id", [] if config_id is None else [config_id], False
    yield "data_ids", files_down.get("data_ids") or [], True
    yield "artifact_ids", files_down.get("artifact_ids") or [], True


def _checked(name: str) -> str:
    """An id that names something below its directory. Raises `InvalidPath`."""
    if not name.strip("/"):
        raise InvalidPath("an id must name a file or a directory")
    return name


async def collect(
    storage: Storage,
    user_id: str,
    selections: list[Selection],
    entrypoint: Entrypoint,
    results: list[UserPath],
    *,
    limit: int,
) -> tuple[dict[str, str], list[bool]]:
    """Path in the container → storage URI, for every file that the selections hold; and for each
    of `results` whether files lie there already.

    Raises `Refused` for what does not exist, cannot be fetched, or would clash in the container;
    `TooLarge` for more than `limit` files (0: any number), or as many selections.
    """
    if limit and len(selections) > limit:
        raise _too_many(limit)  # a million ids are not looked for only to be refused
    try:
        found, taken = await storage.survey([selection.path for selection in selections], results)
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise Refused(str(error)) from error
    inputs = _Inputs(selections, found, entrypoint, storage.uri(UserPath(user_id)), limit)
    if sum(map(len, filter(None, found))) > _MANY:
        return await asyncio.to_thread(inputs.arrange), taken
    return inputs.arrange(), taken


def _too_many(limit: int) -> TooLarge:
    return TooLarge(f"A job may have at most {limit} input files")


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The files that were found for each selection; `tree` is the URI of the user's tree."""

    selections: list[Selection]
    found: list[list[Entry] | None]
    entrypoint: Entrypoint
    tree: str
    limit: int

    def arrange(self) -> dict[str, str]:
        """Path in the container → storage URI. Raises `Refused`, `TooLarge`."""
        uris: dict[str, str] = {}
        for selection, entries in zip(self.selections, self.found, strict=True):
            if entries is None:
                raise Refused(f"The input {selection} does not exist")
            for entry in entries:
                place, uri = self._place(selection, entry), f"{self.tree}/{entry.path}"
                if uris.setdefault(place, uri) != uri:
                    raise self._clash(place, selection)
            if self.limit and len(uris) > self.limit:
                raise _too_many(self.limit)
        self._check_parents(uris)
        return uris

    def _place(self, selection: Selection, entry: Entry) -> str:
        if not _UNFETCHABLE.isdisjoint(entry.path):
            raise Refused(
                f"The input file '{entry.path}' has a name that workers cannot fetch:"
                " it holds '#', '?' or '%'"
            )
        root = self.entrypoint.files_down[selection.argument].rstrip("/")
        chosen = selection.path.parts
        name = chosen[-1] if entry.path == "/".join(chosen) else relative_to(entry.path, chosen)
        return f"{root}/{name}"

    def _check_parents(self, uris: Mapping[str, str]) -> None:
        """No file may stand where another one needs a directory."""
        for place in uris:
            parent = place
            while (cut := parent.rfind("/")) > 0:
                parent = parent[:cut]
                if parent in uris:
                    raise self._clash(parent, self._giver(place))

    def _clash(self, place: str, second: Selection) -> Refused:
        return Refused(
            f"The inputs {self._giver(place)} and {second} hold different files"
            f" for the same place '{place}'"
        )

    def _giver(self, place: str) -> Selection:
        """The first selection with a file for `place`."""
        return next(
            selection
            for selection, entries in zip(self.selections, self.found, strict=True)
            if any(self._place(selection, entry) == place for entry in entries or ())
        )
