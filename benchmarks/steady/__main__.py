"""`python -m benchmarks.steady --seconds 1800`: a steady load without faults, then the figures.

Exits with 1 if a job was lost or run twice, a mail is missing, a request was not answered as it has
to be, or memory, file handles or the tables' rows were not flat in the second half.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import orjson

from benchmarks.database import KINDS, TITLES, Kind, fresh_database, postgresql_server
from benchmarks.processes import DidNotStart
from benchmarks.soak.audit import audit, settle
from benchmarks.soak.stage import Stage, set_up
from benchmarks.steady import requests
from benchmarks.steady.report import Findings, render, troubles
from benchmarks.steady.samples import Watch
from benchmarks.steady.users import USERS, SteadyUser
from benchmarks.steady.workers import SteadyWorker
from common.storage.local import staging as local_staging
from devtools.postgres import NoPostgres

_EVERY: Final = 5.0
_QUIET: Final = 90.0
_AS_IN_PRODUCTION: Final = {
    "HANDOVER_TIMEOUT": "30",
    "HANDOVER_GRACE": "60",
    "EMAIL_TIMEOUT": "30",
    "EMAIL_LOOKUP_WAIT": "30",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Times in seconds; `rate` is the users' actions per second, all together."""

    database: Kind
    seconds: float
    rate: float
    lifetime: float
    retention: float
    seed: int
    keep: Path | None


async def _hold(stage: Stage, options: Options) -> Findings:
    kinds: defaultdict[str, requests.Kind] = defaultdict(requests.Kind)
    users = [_user(stage, f"user-{number}", kinds, options) for number in range(USERS)]
    watch = Watch(stage.session, [*stage.services, *stage.standins], stage.database)
    watching = asyncio.ensure_future(watch.keep_up(_EVERY))
    await _live(users, options.seconds)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    settled = await settle(stage, _QUIET)
    verdict = await asyncio.to_thread(audit, stage, settled=settled, retention=options.retention)
    subjects = stage.ledger.subjects
    left_behind = local_staging.stale(str(stage.folder / "user_data"), 0.0)
    return Findings(
        watch=watch,
        judged=[service.name for service in stage.services],
        kinds=kinds,
        ledger=stage.ledger,
        verdict=verdict,
        missing_mails=[
            subject for user in users for subject in user.jobs.endings if not subjects[subject]
        ],
        left_behind=len(left_behind),
    )


def _user(
    stage: Stage, name: str, kinds: defaultdict[str, requests.Kind], options: Options
) -> SteadyUser:
    client = requests.Client(stage.session, stage.url, stage.identity.token_of(name), kinds)
    return SteadyUser(
        name,
        client,
        stage.ledger,
        options.seed,
        rate=options.rate / USERS,
        lifetime=options.lifetime,
    )


async def _live(users: list[SteadyUser], seconds: float) -> None:
    """Let the users act for so long; each ends what it is about."""
    ends = time.monotonic() + seconds
    await asyncio.gather(*(user.live(ends) for user in users))


def _run(options: Options) -> bool:
    """Print what was found; returns whether anything was not as it has to be."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="opencloud-steady-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = stack.enter_context(postgresql_server()) if options.database != "sqlite" else None
        database = stack.enter_context(fresh_database(options.database, server, folder))

        async def work() -> Findings:
            async with set_up(
                database,
                None,
                folder,
                options.seed,
                patience={**_AS_IN_PRODUCTION, "HANDOVER_RETENTION": f"{options.retention:g}"},
                worker_type=SteadyWorker,
                clock_off=0,
            ) as stage:
                return await _hold(stage, options)

        try:
            found = asyncio.run(work())
        finally:
            if options.keep is not None:
                _keep_logs(folder, options.keep)
    if options.keep is not None:
        (options.keep / "samples.json").write_bytes(
            orjson.dumps(
                {"processes": found.watch.processes, "database": found.watch.database},
                option=orjson.OPT_NON_STR_KEYS,
            )
        )
    print(render(found), flush=True)
    return bool(troubles(found))


def _keep_logs(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        shutil.copy(log, target)


def _parse() -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steady", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--database", choices=KINDS, default="postgresql")
    parser.add_argument("--rate", type=float, default=30.0, help="users' actions per second")
    parser.add_argument("--lifetime", type=float, default=240.0, help="seconds a job is kept")
    parser.add_argument("--retention", type=float, default=120.0, help="HANDOVER_RETENTION")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="put samples and logs there")
    return Options(**vars(parser.parse_args()))


def _end(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    options = _parse()
    signal.signal(signal.SIGTERM, _end)
    print(
        f"{TITLES[options.database]}: {options.seconds:.0f} s,"
        f" {options.rate:g} actions per second, seed {options.seed}",
        file=sys.stderr,
        flush=True,
    )
    try:
        wrong = _run(options)
    except (DidNotStart, NoPostgres) as error:
        raise SystemExit(f"steady: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
