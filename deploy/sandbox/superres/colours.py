"""Colour maps by a few anchor points each, interpolated to 256 colours."""

from typing import Final

import numpy as np
import numpy.typing as npt

_ANCHORS: Final[dict[str, tuple[tuple[int, int, int], ...]]] = {
    "hot": ((0, 0, 0), (120, 0, 0), (230, 40, 0), (255, 150, 0), (255, 235, 90), (255, 255, 255)),
    "gray": ((0, 0, 0), (255, 255, 255)),
    "cyan": ((0, 0, 0), (0, 60, 90), (0, 170, 200), (120, 240, 255), (255, 255, 255)),
    "green": ((0, 0, 0), (0, 80, 20), (30, 200, 60), (170, 255, 150), (255, 255, 255)),
    "magma": (
        (0, 0, 4), (40, 17, 89), (114, 31, 129), (183, 55, 121),
        (241, 96, 93), (254, 176, 120), (252, 253, 191),
    ),
    "viridis": (
        (68, 1, 84), (65, 68, 135), (42, 120, 142), (34, 168, 132), (122, 209, 81), (253, 231, 37),
    ),
}  # fmt: skip

COLORMAPS: Final = tuple(_ANCHORS)


def colour(values: npt.NDArray[np.float32], colormap: str) -> npt.NDArray[np.uint8]:
    """RGB of values from 0 to 1; `colormap` is one of `COLORMAPS`."""
    anchors = np.array(_ANCHORS[colormap], dtype=np.float64)
    positions = np.linspace(0.0, 1.0, len(anchors))
    steps = np.linspace(0.0, 1.0, 256)
    table = np.stack([np.interp(steps, positions, anchors[:, band]) for band in range(3)], axis=1)
    indices = np.clip(values * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(table.round().astype(np.uint8)[indices], dtype=np.uint8)
