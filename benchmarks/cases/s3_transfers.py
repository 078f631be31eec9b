"""Large bodies through a gateway whose files are on S3."""

from collections.abc import Iterator
from typing import Final

from benchmarks.cases.transfers import (
    carry_out,
    download_errand,
    in_turns,
    memory_note,
    name_of,
    upload_errand,
)
from benchmarks.figures import Floor, Result, Transfer
from benchmarks.messages import Caller
from benchmarks.s3_stage import gateway_on_s3
from benchmarks.stage import Stage
from benchmarks.transfer import Errand
from devtools import proc

_GROUP: Final = "Large files on S3 (a stand-in that keeps nothing)"
_MIB: Final = 1 << 20


def _put_errand(store: Caller, target: str, size: int) -> Errand:
    """What a client of S3 sends that needs no form and no parts."""
    head = store.message("PUT", target, length=size, headers={"Connection": "close"})
    return Errand(host=store.host, port=store.port, head=head.decode(), status=200, size=size)


def upload(stage: Stage) -> Iterator[Result]:
    """upload of one large file to S3"""
    size = stage.options.size * _MIB
    with gateway_on_s3(stage) as s3:
        rest = proc.resident_mib(s3.gateway.pid)
        ours = upload_errand(s3.user, "/files/data/upload/upload", size, 201)
        straight = _put_errand(s3.store, s3.place("data/straight/large.bin"), size)
        bare = upload_errand(stage.bare(stage.user), "/discard", size, 200)
        found, peak = in_turns(
            s3.gateway,
            stage.options.repeats,
            lambda: carry_out(ours, s3.gateway.pid),
            lambda: carry_out(straight, s3.store_pid),
            lambda: carry_out(bare, stage.bare_pid),
        )
    sent, put, discarded = found
    both = Transfer(size=size, seconds=put.seconds + discarded.seconds)
    yield Result(
        group=_GROUP,
        name=name_of(stage, "upload"),
        figure=sent.figure(),
        floors=(
            Floor(name="straight to S3", figure=put.figure()),
            Floor(name="bare handler that discards", figure=discarded.figure()),
            Floor(name="one after the other", figure=both.figure()),
        ),
        peak=peak,
        note=memory_note(rest),
    )


def download(stage: Stage) -> Iterator[Result]:
    """download of one large file from S3"""
    size = stage.options.size * _MIB
    path = "data/download/large.bin"
    with gateway_on_s3(stage) as s3:
        carry_out(_put_errand(s3.store, s3.place(path), size), None)
        rest = proc.resident_mib(s3.gateway.pid)
        ours = download_errand(s3.user, f"/files/{path}/download")
        straight = download_errand(s3.store, s3.place(path))
        found, peak = in_turns(
            s3.gateway,
            stage.options.repeats,
            lambda: carry_out(ours, s3.gateway.pid),
            lambda: carry_out(straight, s3.store_pid),
        )
    received, got = found
    yield Result(
        group=_GROUP,
        name=name_of(stage, "download"),
        figure=received.figure(),
        floors=(Floor(name="straight from S3", figure=got.figure()),),
        peak=peak,
        note=memory_note(rest),
    )
