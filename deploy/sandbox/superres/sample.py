"""`python -m deploy.sandbox.superres.sample --into FOLDER`: realistic sample input.

Crossing filaments (as of microtubules), rings of eight corners (as of nuclear pores) and a thin
background, with log-normal photon counts and a precision that follows from them.
"""

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

_FIELD_NM: Final = 12_800.0
_PIXEL_NM: Final = 100.0
_FRAMES: Final = 5_000
_CONFIGURATION: Final = f"""\
# How to render localizations.csv
pixel_size_nm: {_PIXEL_NM:g}    # size of a camera pixel
units: px             # of x and y: px or nm
render_pixel_nm: 10   # size of a pixel of the image
sigma_nm: 12          # blur
min_photons: 300      # fainter localisations are left out
colormap: hot         # hot, gray, cyan, green, magma or viridis
gamma: 0.6
"""


def positions(count: int, random: np.random.Generator) -> Points:
    """True positions of `count` molecules, in nm."""
    shares = random.multinomial(count, (0.62, 0.30, 0.08))
    parts = [_filaments(shares[0], random), _rings(shares[1], random)]
    parts.append(random.uniform(0.0, _FIELD_NM, (shares[2], 2)))
    return np.concatenate(parts)


def _filaments(count: int, random: np.random.Generator, filaments: int = 14) -> Points:
    middle, angle = random.uniform(0.2, 0.8, (filaments, 2)), random.uniform(0, np.pi, filaments)
    bend = random.normal(0.0, 0.12, filaments)
    which = random.integers(filaments, size=count)
    along = random.uniform(-0.75, 0.75, count)
    across = bend[which] * (along**2 - 0.15) + random.normal(0.0, 0.0009, count)
    cosine, sine = np.cos(angle[which]), np.sin(angle[which])
    x = middle[which, 0] + along * cosine - across * sine
    y = middle[which, 1] + along * sine + across * cosine
    return np.stack([x, y], axis=1) * _FIELD_NM


def _rings(count: int, random: np.random.Generator, rings: int = 90) -> Points:
    centre = random.uniform(0.05, 0.95, (rings, 2)) * _FIELD_NM
    turn = random.uniform(0, np.pi / 4, rings)
    which = random.integers(rings, size=count)
    angle = turn[which] + random.integers(8, size=count) * np.pi / 4
    corner = 55.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray(centre[which] + corner, dtype=np.float64)


def table(count: int, seed: int) -> npt.NDArray[np.float64]:
    """Rows of x, y (camera pixels), frame and photons, by frame."""
    random = np.random.default_rng(seed)
    place = positions(2 * count, random)
    inside = np.all((place >= 0) & (place < _FIELD_NM), axis=1)
    place = random.permutation(place[inside])[:count]
    photons = random.lognormal(np.log(1_200.0), 0.6, len(place))
    precision = 130.0 / np.sqrt(photons) + 1.5
    place = place + random.normal(size=place.shape) * precision[:, None]
    frame = np.sort(random.integers(1, _FRAMES + 1, len(place)))
    return np.column_stack([place / _PIXEL_NM, frame, photons])


def write(folder: Path, *, count: int = 40_000, seed: int = 1) -> tuple[Path, Path]:
    """Write localizations.csv and render.yaml; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    data, config = folder / "localizations.csv", folder / "render.yaml"
    np.savetxt(
        data,
        table(count, seed),
        fmt=("%.4f", "%.4f", "%d", "%.1f"),
        delimiter=",",
        header="x,y,frame,photons",
        comments="",
    )
    config.write_text(_CONFIGURATION, encoding="utf-8")
    return data, config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=Path(), help="folder (default: this one)")
    parser.add_argument("--count", type=int, default=40_000, help="number of localisations")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for path in write(given.into, count=given.count, seed=given.seed):
        print(path)


if __name__ == "__main__":
    main()
