"""The targets, as ratios to baselines: only ratios within one run mean anything.

The absolute figures belong to a machine on which, in the same minutes, a bare handler answered
`_HANDLER` requests per second and a copy with fsync wrote `_DISK` MiB/s.
"""

from typing import Final, NamedTuple

_HANDLER: Final = 19_600.0
_DISK: Final = 685.0
_SQLITE_SHARE: Final = 1 / 3


class Target(NamedTuple):
    """The ratio that must be reached, and the one to aim at."""

    must: float | None = None
    aim: float | None = None


_REQUESTS: Final[dict[str, tuple[float, float]]] = {
    "welcome": (10_000, 0.8 * _HANDLER),
    "user": (8_000, 0.6 * _HANDLER),
    "job": (3_600, 6_000),
    "jobs": (500, 1_500),
    "listing": (300, 1_000),
    "keepalive": (2_000, 5_000),
    "submit": (1_000, 2_000),
}

TRANSFERS: Final[dict[str, Target]] = {
    "upload": Target(500 / _DISK, 1.0),
    "download": Target(1_000 / _DISK, None),
    "zip": Target(300 / _DISK, 600 / _DISK),
}
"""Ratios to a file copy with fsync."""

DOWNLOAD_OF_SENDFILE: Final = 0.7

RESUMABLE_OF_PLAIN: Final = 0.8

SMALL_FILES_OF_SINGLE: Final = 5.0
"""Files of an archive, as a ratio to single uploads."""

PEAK_MIB: Final = 100
"""Peak memory of the gateway for a transfer of any size."""


def of_requests(name: str, *, sqlite: bool = False) -> Target:
    """The ratios to a bare handler's requests per second; a third of them on SQLite."""
    must, aim = _REQUESTS[name]
    share = _SQLITE_SHARE if sqlite else 1.0
    return Target(must * share / _HANDLER, aim * share / _HANDLER)
