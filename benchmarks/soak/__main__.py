"""`python -m benchmarks.soak --seconds 60`: break everything for that long, then count.

Exits with 1 if a job was lost or run twice, or a mail is missing.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NoReturn

from benchmarks.database import KINDS, TITLES, Kind, fresh_database
from benchmarks.processes import DidNotStart
from benchmarks.soak.audit import audit, settle
from benchmarks.soak.chaos import Chaos
from benchmarks.soak.stage import Stage, set_up
from benchmarks.soak.table import render
from devtools.postgres import NoPostgres, OwnServer, own_server

_QUIET: Final = 60.0
"""Seconds without any progress after which the cloud counts as stuck."""

_LAST_ANSWERS: Final = 90.0
_RATE: Final = 15.0


async def _soak(stage: Stage, seconds: float, seed: int, title: str) -> tuple[str, bool]:
    """The table, and whether a promise was broken."""
    chaos = Chaos(stage, random.Random(seed))
    load = asyncio.ensure_future(stage.user.submit(_RATE))
    try:
        await chaos.run_for(seconds)
    finally:
        load.cancel()
    print("  quiet", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        async with asyncio.timeout(_LAST_ANSWERS):
            await stage.user.finish()
    except TimeoutError:
        settled = False
    else:
        settled = await settle(stage, _QUIET)
    quiet = time.monotonic() - started
    verdict = await asyncio.to_thread(audit, stage, settled=settled)
    title = f"{title}; quiet after {quiet:.0f} s"
    return render(title, stage.ledger, verdict, chaos), verdict.broken


def _run(kind: Kind, seconds: float, seed: int, keep: Path | None) -> bool:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="opencloud-soak-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server: OwnServer | None = None
        if kind == "postgresql":
            server = stack.enter_context(own_server())
        database = stack.enter_context(fresh_database(kind, server, folder))
        title = f"{TITLES[kind]}: {seconds:.0f} s of faults, seed {seed}"
        print(title, file=sys.stderr, flush=True)

        async def work() -> tuple[str, bool]:
            async with set_up(database, server, folder, seed) as stage:
                return await _soak(stage, seconds, seed, title)

        try:
            table, broken = asyncio.run(work())
        finally:
            if keep is not None:
                shutil.copytree(folder, keep / kind, dirs_exist_ok=True)
    print(table, flush=True)
    print()
    return broken


def _end(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults, per database")
    parser.add_argument("--database", choices=[*KINDS, "both"], default="both")
    parser.add_argument("--seed", type=int, default=None, help="the same faults again")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy logs and journals there")
    given = parser.parse_args()
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    kinds: tuple[Kind, ...] = KINDS if given.database == "both" else (given.database,)
    signal.signal(signal.SIGTERM, _end)
    try:
        broken = [kind for kind in kinds if _run(kind, given.seconds, seed, given.keep)]
    except (DidNotStart, NoPostgres) as error:
        raise SystemExit(f"soak: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if broken:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
