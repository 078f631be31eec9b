"""Small files: how many per second."""

from collections.abc import Iterator
from typing import Final

from benchmarks import disk, seed
from benchmarks.cases.transfers import carry_out, download_errand, in_turns
from benchmarks.figures import Figure, Floor, Result, Transfer
from benchmarks.measure import plan, run_load
from benchmarks.stage import Stage
from devtools import proc

_GROUP: Final = "Small files"
_SIZE: Final = 1024


def zip_small(stage: Stage) -> Iterator[Result]:
    """zip of a directory with 20 000 small files"""
    folder = stage.tree / "data" / "many"
    count = stage.options.small_files
    for part in range(0, count, 1_000):
        names = [f"{number:06d}.txt" for number in range(part, min(part + 1_000, count))]
        seed.add_files(folder / f"{part:06d}", names, _SIZE)
    ours = download_errand(stage.user, "/files/data/many/download")
    found, peak = in_turns(
        stage.gateway,
        stage.options.repeats,
        lambda: carry_out(ours, stage.gateway.pid),
        lambda: disk.zip_into_nothing(folder)[0],
    )
    received, packed = found
    yield Result(
        group=_GROUP,
        name=f"zip of {count:,} files of 1 KiB".replace(",", " "),
        figure=_files_per_second(received, count),
        floors=(Floor(name="zipfile into nothing", figure=_files_per_second(packed, count)),),
        peak=peak,
        note=f"first byte after {received.first * 1000:.1f} ms",
    )


def _files_per_second(transfer: Transfer, count: int) -> Figure:
    spent = transfer.cpu_seconds
    return Figure(
        value=count / transfer.seconds,
        unit="files/s",
        cpu=None if spent is None else spent / count * 1e6,
    )


def small_uploads(stage: Stage) -> Iterator[Result]:
    """uploads of small files"""
    options = stage.options
    content = bytes(_SIZE)
    ours = stage.user.form("/files/data/small/upload", "file_@@@@@@@@@@.bin", content)
    bare = stage.bare(stage.user).form("/discard", "file_@@@@@@@@@@.bin", content)
    seconds = options.seconds
    proc.reset_peak([stage.gateway.pid])
    sent = run_load(
        plan(stage.user, [ours], options, seconds=seconds, status=201), [stage.gateway.pid]
    )
    peak = proc.peak_mib([stage.gateway.pid])
    discarded = run_load(
        plan(stage.bare(stage.user), [bare], options, seconds=seconds / 2), [stage.bare_pid]
    )
    placed = disk.place_small_files(stage.folder / "placed", _SIZE, seconds / 2)
    yield Result(
        group=_GROUP,
        name="uploads of 1 KiB",
        figure=sent.per_second(),
        floors=(
            Floor(name="bare handler that discards", figure=discarded.per_second()),
            Floor(name="write and rename, one by one", figure=placed.per_second()),
        ),
        peak=peak,
        note="aim: 1 000/s on one core",
    )
