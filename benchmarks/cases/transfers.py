"""Large bodies: MiB per second, processor seconds per GiB, and peak memory."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import orjson

from benchmarks import disk, nginx, seed
from benchmarks.figures import Floor, Result, Transfer, middle
from benchmarks.messages import Caller, form_parts
from benchmarks.processes import Child, call
from benchmarks.stage import Stage
from benchmarks.targets import (
    DOWNLOAD_OF_SENDFILE,
    PEAK_MIB,
    UPLOAD_OF_HANDLER_AND_DISK,
    of_transfer,
)
from benchmarks.transfer import Errand, to_json
from deploy.sandbox.ports import LOOPBACK
from devtools import proc

_GROUP: Final = "Large files"
_MIB: Final = 1 << 20
_FILES_IN_ZIP: Final = 8


def carry_out(errand: Errand, pid: int | None) -> Transfer:
    """One transfer; the processor time is that of `pid`."""
    pids = [] if pid is None else [pid]
    before = proc.cpu_seconds(pids)
    found = orjson.loads(call("benchmarks.transfer", given=to_json(errand)))
    spent = None if pid is None else proc.cpu_seconds(pids) - before
    return Transfer(**found, cpu_seconds=spent)


def download_errand(caller: Caller, target: str) -> Errand:
    """A GET whose answer may be of any size."""
    head = caller.message("GET", target, headers={"Connection": "close"}).decode()
    return Errand(host=caller.host, port=caller.port, head=head, status=200)


def upload_errand(caller: Caller, target: str, size: int, status: int) -> Errand:
    """A POST of a form with one file of `size` bytes."""
    before, after, kind = form_parts("large.bin")
    length = len(before) + size + len(after)
    head = caller.message(
        "POST", target, length=length, headers={"Content-Type": kind, "Connection": "close"}
    )
    return Errand(
        host=caller.host,
        port=caller.port,
        head=head.decode(),
        status=status,
        size=size,
        before=before.decode(),
        after=after.decode(),
    )


def memory_note(rest: float) -> str:
    """What the peak is to be compared with; `rest` is the memory before, in MiB."""
    return f"memory before {rest:.0f} MiB; peak to stay below {PEAK_MIB} MiB"


def in_turns(
    gateway: Child, repeats: int, *steps: Callable[[], Transfer]
) -> tuple[list[Transfer], float | None]:
    """Each step several times in turns: their medians, and the gateway's peak memory."""
    pids = [gateway.pid]
    proc.reset_peak(pids)
    rounds = [[step() for step in steps] for _ in range(repeats)]
    return [middle(column) for column in zip(*rounds, strict=True)], proc.peak_mib(pids)


def _large(stage: Stage) -> Path:
    """A file with the size of a large transfer, made once."""
    path = stage.folder / "bare" / "large.bin"
    if not path.exists():
        seed.add_files(path.parent, [path.name], stage.options.size * _MIB)
    return path


def _copy(stage: Stage) -> Transfer:
    return disk.copy_with_fsync(_large(stage), stage.folder / "copy.bin")


def _disk_floor(copied: Transfer, name: str) -> Floor:
    must, aim = of_transfer(name)
    return Floor(name="copy with fsync", figure=copied.figure(), target=must, aim=aim)


def name_of(stage: Stage, what: str) -> str:
    return f"{what} of {stage.options.size} MiB"


def upload(stage: Stage) -> Iterator[Result]:
    """upload of one large file"""
    rest = proc.resident_mib(stage.gateway.pid)
    size = stage.options.size * _MIB
    stored = stage.tree / "data" / "upload" / "large.bin"
    ours = upload_errand(stage.user, "/files/data/upload/upload", size, 201)
    bare = upload_errand(stage.bare(stage.user), "/discard", size, 200)

    def send() -> Transfer:
        sent = carry_out(ours, stage.gateway.pid)
        stored.unlink()
        return sent

    found, peak = in_turns(
        stage.gateway,
        stage.options.repeats,
        send,
        lambda: carry_out(bare, stage.bare_pid),
        lambda: _copy(stage),
    )
    sent, discarded, copied = found
    both = Transfer(size=size, seconds=discarded.seconds + copied.seconds)
    yield Result(
        group=_GROUP,
        name=name_of(stage, "upload"),
        figure=sent.figure(),
        floors=(
            _disk_floor(copied, "upload"),
            Floor(name="bare handler that discards", figure=discarded.figure()),
            Floor(
                name="that and the copy in turn",
                figure=both.figure(),
                aim=UPLOAD_OF_HANDLER_AND_DISK,
            ),
        ),
        peak=peak,
        note=memory_note(rest),
    )


def download(stage: Stage) -> Iterator[Result]:
    """download of one large file"""
    rest = proc.resident_mib(stage.gateway.pid)
    source = _large(stage)
    file = stage.tree / "data" / "download" / source.name
    file.parent.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        file.hardlink_to(source)
    ours = download_errand(stage.user, f"/files/data/download/{source.name}/download")
    bare = download_errand(stage.bare(stage.user), f"/file/{source.name}")
    with nginx.serving(source.parent, stage.folder / "nginx") as port:
        steps = [
            lambda: carry_out(ours, stage.gateway.pid),
            lambda: carry_out(bare, stage.bare_pid),
            lambda: _copy(stage),
        ]
        if port is not None:
            third = download_errand(Caller(host=LOOPBACK, port=port), f"/{source.name}")
            steps.append(lambda: carry_out(third, None))
        found, peak = in_turns(stage.gateway, stage.options.repeats, *steps)
    received, plain, copied, *by_nginx = found
    yield Result(
        group=_GROUP,
        name=name_of(stage, "download"),
        figure=received.figure(),
        floors=(
            _disk_floor(copied, "download"),
            Floor(name="bare FileResponse", figure=plain.figure(), aim=DOWNLOAD_OF_SENDFILE),
            *(
                Floor(name="nginx", figure=item.figure(), aim=DOWNLOAD_OF_SENDFILE)
                for item in by_nginx
            ),
        ),
        peak=peak,
        note=memory_note(rest),
    )


def zip_large(stage: Stage) -> Iterator[Result]:
    """zip of a directory with a few large files"""
    rest = proc.resident_mib(stage.gateway.pid)
    folder = stage.tree / "data" / "zipped"
    names = [f"part_{index}.bin" for index in range(_FILES_IN_ZIP)]
    seed.add_files(folder, names, stage.options.size * _MIB // len(names))
    ours = download_errand(stage.user, "/files/data/zipped/download")
    found, peak = in_turns(
        stage.gateway,
        stage.options.repeats,
        lambda: carry_out(ours, stage.gateway.pid),
        lambda: disk.zip_into_nothing(folder)[0],
        lambda: _copy(stage),
    )
    received, packed, copied = found
    yield Result(
        group=_GROUP,
        name=name_of(stage, "zip"),
        figure=received.figure(),
        floors=(
            _disk_floor(copied, "zip"),
            Floor(name="zipfile into nothing", figure=packed.figure()),
        ),
        peak=peak,
        note=f"first byte after {received.first * 1000:.1f} ms; {memory_note(rest)}",
    )
