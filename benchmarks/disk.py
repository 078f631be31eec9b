"""Floors without a network: what the disk and the archive format take by themselves."""

import os
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Sample, Transfer
from benchmarks.tool import timed

_PIECE: Final = 1 << 20


class _Nowhere:
    """A sink that cannot seek."""

    def write(self, data: Any) -> int:
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def copy_with_fsync(source: Path, target: Path) -> Transfer:
    """Copy a file so that it is on the disk; the copy is gone afterwards."""

    def copy() -> None:
        with source.open("rb") as read, target.open("wb", buffering=0) as written:
            while piece := read.read(_PIECE):
                written.write(piece)
            os.fsync(written.fileno())

    seconds, cpu_seconds = timed(copy)
    size = target.stat().st_size
    target.unlink()
    return Transfer(size=size, seconds=seconds, cpu_seconds=cpu_seconds)


def zip_into_nothing(folder: Path) -> tuple[Transfer, int]:
    """Make a stored archive of a directory; also tells how many files it held."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())

    def pack() -> None:
        with zipfile.ZipFile(_Nowhere(), "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
            for path in files:
                info = zipfile.ZipInfo(str(path.relative_to(folder)))
                with path.open("rb") as read, archive.open(info, "w", force_zip64=True) as member:
                    shutil.copyfileobj(read, member, _PIECE)

    seconds, cpu_seconds = timed(pack)
    size = sum(path.stat().st_size for path in files)
    return Transfer(size=size, seconds=seconds, cpu_seconds=cpu_seconds), len(files)


def place_small_files(folder: Path, size: int, seconds: float) -> Sample:
    """Write small files under a passing name and rename each into its place, one by one."""
    staging, tree = folder / "staging", folder / "tree"
    for made in (staging, tree):
        made.mkdir(parents=True)
    content = bytes(size)
    count, ends = 0, time.monotonic() + seconds

    def place() -> None:
        nonlocal count
        while time.monotonic() < ends:
            written = staging / f"{count}"
            written.write_bytes(content)
            written.replace(tree / f"{count}")
            count += 1

    taken, cpu_seconds = timed(place)
    shutil.rmtree(folder)
    return Sample(count=count, seconds=taken, cpu_seconds=cpu_seconds)
