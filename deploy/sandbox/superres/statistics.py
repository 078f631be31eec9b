"""The statistics of a rendering."""

import csv
from pathlib import Path
from typing import Final

import numpy as np

from deploy.sandbox.superres.localizations import Localizations

Row = tuple[str, float | int, str]

_NEIGHBOUR_SAMPLE: Final = 1_000


def compute(points: Localizations, *, read: int) -> list[Row]:
    """Name, value and unit of each figure of the kept localisations; `read` were in the file."""
    width, height = float(np.ptp(points.x)), float(np.ptp(points.y))
    area = width * height / 1e6
    first, last = int(points.frame.min()), int(points.frame.max())
    frames = last - first + 1
    rows: list[Row] = [
        ("localizations_read", read, ""),
        ("localizations_kept", len(points), ""),
        ("first_frame", first, ""),
        ("last_frame", last, ""),
        ("frames", frames, ""),
        ("localizations_per_frame", len(points) / frames, ""),
        ("mean_photons", float(points.photons.mean()), "photons"),
        ("median_photons", float(np.median(points.photons)), "photons"),
        ("field_of_view_x", width, "nm"),
        ("field_of_view_y", height, "nm"),
        ("density", len(points) / area if area else 0.0, "1/um^2"),
        ("mean_nearest_neighbour_distance", nearest_neighbour(points), "nm"),
    ]
    return rows


def nearest_neighbour(points: Localizations, sample: int = _NEIGHBOUR_SAMPLE) -> float:
    """Mean distance to the nearest other localisation, in nm, over an even sample; 0 for one."""
    count = len(points)
    if count < 2:
        return 0.0
    chosen = np.unique(np.linspace(0, count - 1, min(sample, count)).astype(np.int64))
    nearest = np.empty(len(chosen))
    for place, index in enumerate(chosen):
        squared = (points.x - points.x[index]) ** 2 + (points.y - points.y[index]) ** 2
        squared[index] = np.inf
        nearest[place] = squared.min()
    return float(np.sqrt(nearest).mean())


def write(rows: list[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("quantity", "value", "unit"))
        for name, value, unit in rows:
            table.writerow((name, value if isinstance(value, int) else f"{value:.6g}", unit))
