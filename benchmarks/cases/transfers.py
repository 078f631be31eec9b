"""Large bodies: MiB per second, processor seconds per GiB, and peak memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import seed
from benchmarks.baselines import disk, nginx
from benchmarks.environment import Environment
from benchmarks.measure import in_turns, run_transfer
from benchmarks.messages import Endpoint
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Baseline, Result, Transfer
from benchmarks.targets import DOWNLOAD_OF_SENDFILE, PEAK_MIB, TRANSFERS
from benchmarks.transfer import Request
from deploy.sandbox.ports import LOOPBACK
from devtools import proc

_MIB: Final = 1 << 20
_FILES_IN_ZIP: Final = 8

Step = Callable[[], Transfer]


def _large_file(env: Environment) -> Path:
    """A file of the options' size, made once."""
    path = env.folder / "bare" / "large.bin"
    if not path.exists():
        seed.add_files(path.parent, [path.name], env.options.size * _MIB)
    return path


def _compare(
    env: Environment, what: str, ours: Step, others: Mapping[str, Step], aim: float | None = None
) -> Result:
    """Alternate with a copy with fsync and with the `others`, of which `aim` is the ratio."""
    rest, source = proc.resident_mib(env.gateway.pid), _large_file(env)
    copy = partial(disk.copy_with_fsync, source, env.folder / "copy.bin")
    (moved, copied, *found), peak = in_turns(env, ours, copy, *others.values())
    baselines = [Baseline("copy with fsync", copied.figure(), *TRANSFERS[what])]
    for name, transfer in zip(others, found, strict=True):
        baselines.append(Baseline(name, transfer.figure(), aim=aim))
    name, note = f"{what} of {env.options.size} MiB", f"memory before {rest:.0f} MiB"
    note += f"; peak must stay below {PEAK_MIB} MiB"
    if what == "zip":
        note += f"; first byte after {moved.first_byte * 1000:.1f} ms"
    return Result("Large files", name, moved.figure(), tuple(baselines), peak, note)


@benchmark("upload", Scope.ONCE)
def upload(env: Environment) -> Iterator[Result]:
    """upload of one large file"""
    size = env.options.size * _MIB
    stored = env.tree / "data" / "upload" / "large.bin"
    ours = Request(env.user, "POST", "/files/data/upload/upload", upload=size, status=201)
    bare = Request(env.bare(env.user), "POST", "/discard", upload=size)

    def send() -> Transfer:
        sent = run_transfer(ours, env.gateway)
        stored.unlink()
        return sent

    others = {"bare handler that discards": partial(run_transfer, bare, env.handlers)}
    yield _compare(env, "upload", send, others)


@benchmark("download", Scope.ONCE)
def download(env: Environment) -> Iterator[Result]:
    """download of one large file"""
    source = _large_file(env)
    file = env.tree / "data" / "download" / source.name
    file.parent.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        file.hardlink_to(source)
    ours = Request(env.user, "GET", f"/files/data/download/{source.name}/download")
    bare = Request(env.bare(env.user), "GET", f"/file/{source.name}")
    others = {"bare FileResponse": partial(run_transfer, bare, env.handlers)}
    with nginx.serving(source.parent, env.folder / "nginx") as port:
        if port is not None:
            by_nginx = Request(Endpoint(LOOPBACK, port), "GET", f"/{source.name}")
            others["nginx"] = partial(run_transfer, by_nginx)
        step = partial(run_transfer, ours, env.gateway)
        yield _compare(env, "download", step, others, DOWNLOAD_OF_SENDFILE)


@benchmark("zip", Scope.ONCE)
def zip_large(env: Environment) -> Iterator[Result]:
    """zip of a directory with a few large files"""
    folder = env.tree / "data" / "zipped"
    names = [f"part_{index}.bin" for index in range(_FILES_IN_ZIP)]
    seed.add_files(folder, names, env.options.size * _MIB // len(names))
    ours = Request(env.user, "GET", "/files/data/zipped/download")
    others = {"zipfile into nothing": partial(disk.zip_into_nothing, folder)}
    yield _compare(env, "zip", partial(run_transfer, ours, env.gateway), others)
