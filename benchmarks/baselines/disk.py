"""What the disk and the archive format take by themselves."""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any, Final

from benchmarks.isolation import measured
from benchmarks.results import Sample, Transfer

_CHUNK: Final = 1 << 20


class _NullFile:
    """A sink that cannot seek."""

    def write(self, data: Any) -> int:
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""


def copy_with_fsync(source: Path, target: Path) -> Transfer:
    """Copy a file and sync it to the disk, as `dd conv=fsync` does; the copy is deleted."""

    def copy() -> int:
        with source.open("rb") as read, target.open("wb", buffering=0) as written:
            while chunk := read.read(_CHUNK):
                written.write(chunk)
            os.fsync(written.fileno())
        return target.stat().st_size

    moved = _as_transfer(measured(copy))
    target.unlink()
    return moved


def zip_into_nothing(folder: Path) -> Transfer:
    """Archive a directory with `zipfile`, stored, and discard the archive."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())

    def pack() -> int:
        with zipfile.ZipFile(_NullFile(), "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
            for path in files:
                info = zipfile.ZipInfo(str(path.relative_to(folder)))
                with path.open("rb") as read, archive.open(info, "w", force_zip64=True) as member:
                    shutil.copyfileobj(read, member, _CHUNK)
        return sum(path.stat().st_size for path in files)

    return _as_transfer(measured(pack))


def _as_transfer(sample: Sample) -> Transfer:
    return Transfer(size=sample.count, seconds=sample.seconds, cpu_seconds=sample.cpu_seconds)
