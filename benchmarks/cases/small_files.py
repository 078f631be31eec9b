"""Small files per second."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks import seed
from benchmarks.baselines import disk
from benchmarks.environment import Environment
from benchmarks.measure import in_turns, load_of, run_load, run_transfer
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Baseline, Figure, Result, Sample, Transfer, grouped
from benchmarks.targets import SMALL_FILES_OF_SINGLE
from benchmarks.transfer import Request
from devtools import proc

_GROUP: Final = "Small files"
_SIZE: Final = 1024


@benchmark("small-uploads", Scope.ONCE)
def small_uploads(env: Environment) -> Iterator[Result]:
    """uploads of small files"""
    seconds = env.options.seconds
    name, content = "file_@@@@@@@@@@.bin", bytes(_SIZE)
    ours = env.user.form("/files/data/small/upload", name, content)
    bare = env.bare(env.user)
    proc.reset_peak([env.gateway.pid])
    sent = run_load(load_of(env, env.user, [ours], status=201), env.gateway)
    peak = proc.peak_mib([env.gateway.pid])
    to_bare = load_of(env, bare, [bare.form("/discard", name, content)], seconds=seconds / 2)
    discarded = run_load(to_bare, env.handlers)
    baselines = (Baseline("bare handler that discards", discarded.per_second()),)
    note = "aim: 1 000/s on one core"
    yield Result(_GROUP, "uploads of 1 KiB", sent.per_second(), baselines, peak, note)


@benchmark("unpack", Scope.ONCE)
def unpack(env: Environment) -> Iterator[Result]:
    """many small files as one archive"""
    count = env.options.unpacked
    alone = env.user.form("/files/data/alone/upload", "file_@@@@@@@@@@.bin", bytes(_SIZE))
    singly = run_load(load_of(env, env.user, [alone], status=201), env.gateway)
    number = itertools.count()
    for kind, archive in seed.write_archives(env.folder, count, _SIZE).items():
        size = archive.stat().st_size

        def send(archive: Path = archive, size: int = size) -> Transfer:
            # a new folder each time, and none is removed: for a minute, ext4 looks for inodes among
            # those that were just deleted, one by one
            target = f"/files/data/unpacked_{next(number)}/upload?unpack=true"
            request = Request(env.user, "POST", target, upload=size, file=archive, status=201)
            return run_transfer(request, env.gateway)

        (unpacked,), peak = in_turns(env, send)
        figure = _files_per_second(unpacked, count)
        single = singly.per_second("files/s")
        baselines = (Baseline("single uploads", single, aim=SMALL_FILES_OF_SINGLE),)
        yield Result(
            _GROUP, f"{grouped(count)} files of 1 KiB in a {kind}", figure, baselines, peak
        )


@benchmark("zip-small", Scope.ONCE, usual=False)
def zip_small(env: Environment) -> Iterator[Result]:
    """zip of a directory with 20 000 small files"""
    folder, count = env.tree / "data" / "many", env.options.small_files
    seed.add_many_files(folder, count, _SIZE)
    ours = Request(env.user, "GET", "/files/data/many/download")
    (received, packed), peak = in_turns(
        env, lambda: run_transfer(ours, env.gateway), lambda: disk.zip_into_nothing(folder)
    )
    name, figure = f"zip of {grouped(count)} files of 1 KiB", _files_per_second(received, count)
    baselines = (Baseline("zipfile into nothing", _files_per_second(packed, count)),)
    note = f"first byte after {received.first_byte * 1000:.1f} ms"
    yield Result(_GROUP, name, figure, baselines, peak, note)


def _files_per_second(moved: Transfer, count: int) -> Figure:
    sample = Sample(count=count, seconds=moved.seconds, cpu_seconds=moved.cpu_seconds)
    return sample.per_second("files/s")
