"""Reading a table of localisations: CSV with the columns x, y, frame and photons."""

import csv
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from deploy.sandbox.superres import InputError
from deploy.sandbox.superres.encoding import encoding_of

Floats = npt.NDArray[np.float64]

# the names of these columns in the field's programs
_NAMES: Final = {
    "x": ("x",),
    "y": ("y",),
    "frame": ("frame", "frame_ix", "t"),
    "photons": ("photons", "phot", "photon", "intensity"),
}
_LARGEST: Final = 1e12
_HEADING: Final = re.compile(r"\s*(?P<name>[^\[(]*?)\s*(?:[\[(]\s*(?P<unit>[^\])]*?)\s*[\])])?\s*")
_NANOMETRES: Final = {
    name: nanometres
    for nanometres, names in (
        (0.1, "\N{LATIN SMALL LETTER A WITH RING ABOVE} angstrom angstroms"),
        (1.0, "nm nanometer nanometers nanometre nanometres"),
        (1e3, "um \N{GREEK SMALL LETTER MU}m micron microns"),
        (1e3, "micrometer micrometers micrometre micrometres"),
        (1e6, "mm millimeter millimeters millimetre millimetres"),
        (1e9, "m meter meters metre metres"),
    )
    for name in names.split()
}
_PIXELS: Final = ("px", "pix", "pixel", "pixels")
# of the other columns; none of them is converted
_COUNTS: Final = {
    "frame": ("", "#", "frame", "frames"),
    "photons": ("", "ph", "phot", "photon", "photons"),
}


@dataclass(frozen=True)
class Localizations:
    """One array element per localisation; x and y in nanometres."""

    x: Floats
    y: Floats
    frame: npt.NDArray[np.int64]
    photons: Floats

    def __len__(self) -> int:
        return len(self.x)

    def select(self, mask: npt.NDArray[np.bool_]) -> "Localizations":
        return Localizations(self.x[mask], self.y[mask], self.frame[mask], self.photons[mask])


def read(path: Path, *, units: str, pixel_size_nm: float) -> Localizations:
    """Read a table; a unit in a heading, `x [nm]`, overrides `units`.

    Columns may be in any order and among others; lines that start with # are comments.
    Raises `InputError` naming the line, or a unit that is not known.
    """
    with path.open(encoding=encoding_of(path), newline="") as file:
        values, unit_of = _table(file, path.name)
    if not len(values):
        raise InputError(f"{path.name} has a heading but no localisations.")
    x, y, frame, photons = values.T
    lengths = {**_NANOMETRES, **dict.fromkeys(_PIXELS, pixel_size_nm)}
    scale = {axis: lengths[unit_of[axis] or units] for axis in ("x", "y")}
    return Localizations(x * scale["x"], y * scale["y"], frame.astype(np.int64), photons)


def _table(lines: Iterator[str], source: str) -> tuple[Floats, dict[str, str | None]]:
    numbered = ((n, line) for n, line in enumerate(lines, 1) if line.strip() and line[0] != "#")
    first = next(numbered, None)
    if first is None:
        raise InputError(f"{source} is empty.")
    separator = max(",;\t", key=first[1].count)
    positions, unit_of = _columns(next(csv.reader([first[1]], delimiter=separator)), source)
    rows: list[tuple[float, ...]] = []
    for number, line in numbered:
        cells = (
            next(csv.reader([line], delimiter=separator)) if '"' in line else line.split(separator)
        )
        try:
            row = tuple([float(cells[position]) for position in positions])
        except (IndexError, ValueError):
            row = ()
        if not row or not all(-_LARGEST < value < _LARGEST for value in row):
            raise InputError(_what_is_wrong(source, number, cells, positions))
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(-1, len(_NAMES)), unit_of


def _columns(headings: list[str], source: str) -> tuple[list[int], dict[str, str | None]]:
    found: dict[str, int] = {}
    unit_of: dict[str, str | None] = {}
    for position, heading in enumerate(headings):
        match = _HEADING.fullmatch(heading)
        name = match["name"].lower() if match else ""
        for column, names in _NAMES.items():
            if name in names and column not in found:
                found[column] = position
                unit_of[column] = _unit(column, match and match["unit"], source)
    if missing := [column for column in _NAMES if column not in found]:
        shown = ", ".join(heading.strip() for heading in headings)[:120]
        raise InputError(
            f"{source}, line 1: the column '{missing[0]}' is missing (found: {shown})."
        )
    return [found[column] for column in _NAMES], unit_of


def _unit(column: str, text: str | None, source: str) -> str | None:
    """The unit in a heading in the spelling of the tables above; None where there is none."""
    if text is None:
        return None
    # one of each pair of signs that look the same: micro and mu, angstrom and A with a ring
    unit = unicodedata.normalize("NFKC", text).lower()
    known = _COUNTS.get(column, (*_NANOMETRES, *_PIXELS))
    if unit not in known:
        shown = "nm, um, mm, angstrom or px" if column in "xy" else _COUNTS[column][-1]
        raise InputError(f"{source}: '{column}' must be in {shown}, not in [{text}].")
    return unit


def _what_is_wrong(source: str, number: int, cells: list[str], positions: list[int]) -> str:
    for column, position in zip(_NAMES, positions, strict=True):
        if position >= len(cells):
            return f"{source}, line {number}: there is no value for '{column}'."
        text = cells[position].strip()
        try:
            good = -_LARGEST < float(text) < _LARGEST
        except ValueError:
            good = False
        if not good:
            return f"{source}, line {number}: '{column}' must be a number, not {text!r}."
    return f"{source}, line {number} is not readable."
