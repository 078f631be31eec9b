"""A large file by tus in chunks, beside the same file in one form."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from benchmarks import resumable
from benchmarks.environment import Environment
from benchmarks.isolation import in_own_process
from benchmarks.measure import in_turns, run_transfer
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Baseline, Result, Transfer
from benchmarks.resumable import Chunks
from benchmarks.targets import PEAK_MIB, RESUMABLE_OF_PLAIN
from benchmarks.transfer import Request
from devtools import proc

_MIB: Final = 1 << 20
_CHUNKS: Final = (8, 64)
_PATH: Final = "data/resumable/large.bin"


@benchmark("tus", Scope.EACH)
def tus(env: Environment) -> Iterator[Result]:
    """uploads of one large file by tus, with and without a checksum of each chunk"""
    size = env.options.size * _MIB
    stored = env.tree / _PATH
    form = Request(env.user, "POST", "/files/data/resumable/upload", upload=size, status=201)

    def send(has_checksum: bool, mib: int) -> Transfer:
        chunk = mib * _MIB
        upload = Chunks(env.user, _PATH, size=size, chunk=chunk, has_checksum=has_checksum)
        before = proc.cpu_seconds([env.gateway.pid])
        sent: Transfer = in_own_process(resumable.perform, upload)
        sent = replace(sent, cpu_seconds=proc.cpu_seconds([env.gateway.pid]) - before)
        stored.unlink()
        return sent

    def send_form() -> Transfer:
        sent = run_transfer(form, env.gateway)
        stored.unlink()
        return sent

    for has_checksum in (False, True):
        for mib in _CHUNKS:
            (sent, plain), peak = in_turns(env, partial(send, has_checksum, mib), send_form)
            name = f"tus upload of {env.options.size} MiB in chunks of {mib} MiB"
            name += ", each with its SHA-256" if has_checksum else ""
            baseline = Baseline("plain upload", plain.figure(), aim=RESUMABLE_OF_PLAIN)
            note = f"peak must stay below {PEAK_MIB} MiB"
            yield Result("Resumable uploads", name, sent.figure(), (baseline,), peak, note)
