"""From the ids of a submission to the files that a worker downloads.

Ids name files or directories under `config/`, `data/`, `artifact/`. What is found is a snapshot of
names, not of bytes: an input that is deleted before a worker pulls the job makes it fail there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from common.applications import Entrypoint
from common.storage.errors import InvalidPath, StorageError, StorageUnavailable
from common.storage.paths import UserPath, check_name, relative_to
from common.storage.protocol import Entry, Storage
from gateway.errors import Fault, Refused, TooLarge, misnamed

_DIRECTORY: Final = {"config_id": "config", "data_ids": "data", "artifact_ids": "artifact"}

_UNFETCHABLE: Final = frozenset("#?%")


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
    """The selections of a submission, and what is wrong with them.

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
    for part in name.split("/"):
        if part:
            check_name(part)
    return name


async def collect(
    storage: Storage,
    selections: list[Selection],
    entrypoint: Entrypoint,
    results: list[UserPath],
    *,
    limit: int,
) -> tuple[dict[str, str], list[bool]]:
    """Path in the container → storage URI, for every file that the selections hold; and for each
    of `results` whether files lie there already.

    Raises `Refused` for what does not exist, cannot be fetched, or would clash in the container;
    `TooLarge` for more than `limit` files (0: any number).
    """
    try:
        found, taken = await storage.survey([selection.path for selection in selections], results)
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise Refused(str(error)) from error
    places: dict[str, tuple[Selection, UserPath]] = {}
    for selection, entries in zip(selections, found, strict=True):
        if entries is None:
            raise Refused(f"The input {selection} does not exist")
        for place, path in _places(selection, entries, entrypoint):
            other = places.setdefault(place, (selection, path))
            if other[1].parts != path.parts:
                raise _clash(other[0], selection, place)
        if limit and len(places) > limit:
            raise TooLarge(f"A job may have at most {limit} input files")
    _check_parents(places)
    return {place: storage.uri(path) for place, (_, path) in places.items()}, taken


def _places(
    selection: Selection, entries: list[Entry], entrypoint: Entrypoint
) -> Iterator[tuple[str, UserPath]]:
    root = entrypoint.files_down[selection.argument].rstrip("/")
    chosen = selection.path.parts
    own = "/".join(chosen)
    for entry in entries:
        if not _UNFETCHABLE.isdisjoint(entry.path):
            raise Refused(
                f"The input file '{entry.path}' has a name that workers cannot fetch:"
                " it holds '#', '?' or '%'"
            )
        name = chosen[-1] if entry.path == own else relative_to(entry.path, chosen)
        yield f"{root}/{name}", UserPath(selection.path.user, tuple(entry.path.split("/")))


def _check_parents(places: dict[str, tuple[Selection, UserPath]]) -> None:
    """No file may stand where another one needs a directory."""
    for place, (selection, _) in places.items():
        parent = place
        while (cut := parent.rfind("/")) > 0:
            parent = parent[:cut]
            if parent in places:
                raise _clash(places[parent][0], selection, parent)


def _clash(first: Selection, second: Selection, place: str) -> Refused:
    return Refused(
        f"The inputs {first} and {second} hold different files for the same place '{place}'"
    )
