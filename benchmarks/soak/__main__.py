"""`python -m benchmarks.soak`: users and workers with faults at random, then an audit.

With `--no-faults`, a steady load at which memory, file handles and tables have to stay flat.
Exits with 1 if anything is wrong: a job lost or run twice, a mail missing or sent twice, a wrong
answer, a recovery that took too long, or growth.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.environment import database_server
from benchmarks.soak.audit import catch_up, examine, settle
from benchmarks.soak.chaos import Chaos
from benchmarks.soak.report import Findings, problems, render
from benchmarks.soak.samples import Sampler
from benchmarks.soak.stage import Profile, Stage, steady, with_faults
from benchmarks.soak.users import USERS, User
from devtools.database import KINDS, TITLES, Kind, fresh_database
from devtools.postgres import NoPostgres, own_server
from devtools.services import DidNotStart
from devtools.waiting import meanwhile

_SAMPLE_EVERY: Final = 5.0
_QUIET: Final = 90.0
"""Seconds without progress after which the cloud counts as stuck."""

_LAST_RESPONSES: Final = 90.0


async def _soak(stage: Stage, seconds: float, title: str) -> Findings:
    profile = stage.profile
    chaos = Chaos(stage, random.Random(profile.seed)) if profile.faults else None
    sampler = None if chaos else Sampler(stage.services, stage.database)
    users = [stage.user(f"user-{number}") for number in range(USERS)]
    async with meanwhile(*(user.stream.run() for user in users)):
        settled = await _use(stage, users, chaos, sampler, seconds)
        await catch_up(stage)
    audit = await asyncio.to_thread(examine, stage, settled=settled)
    return Findings(title=title, audit=audit, ledger=stage.ledger, chaos=chaos, sampler=sampler)


async def _use(
    stage: Stage, users: list[User], chaos: Chaos | None, sampler: Sampler | None, seconds: float
) -> bool:
    """Have the users act for so long; whether all that they began is settled then."""
    over = asyncio.Event()
    try:
        async with asyncio.timeout(None) as last_responses, asyncio.TaskGroup() as group:
            for user in users:
                group.create_task(user.act_until(over))
            if sampler:
                group.create_task(sampler.run(_SAMPLE_EVERY, over))
            await (chaos.run(seconds) if chaos else asyncio.sleep(seconds))
            over.set()
            last_responses.reschedule(asyncio.get_running_loop().time() + _LAST_RESPONSES)
    except TimeoutError:
        return False
    print("  quiet", file=sys.stderr, flush=True)
    return await settle(stage, _QUIET)


def _run(kind: Kind, seconds: float, profile: Profile, keep: Path | None) -> bool:
    """Print the report; returns whether anything is wrong."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="opencloud-soak-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = None
        if kind == "postgresql":
            # faults include a restart of the server
            server = stack.enter_context(own_server() if profile.faults else database_server())
        database = stack.enter_context(fresh_database(kind, server, folder))
        what = "faults" if profile.faults else f"{profile.rate:g} actions per second"
        title = f"{TITLES[kind]}: {seconds:.0f} s of {what}, seed {profile.seed}"
        print(title, file=sys.stderr, flush=True)

        async def work() -> Findings:
            async with Stage(profile, database, server, folder) as stage:
                return await _soak(stage, seconds, title)

        try:
            found = asyncio.run(work())
        finally:
            if keep is not None:
                ignore = shutil.ignore_patterns("user_data")
                shutil.copytree(folder, keep / kind, ignore=ignore, dirs_exist_ok=True)
    print(render(found), end="\n\n", flush=True)
    return bool(problems(found))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load, per database")
    parser.add_argument("--no-faults", dest="faults", action="store_false")
    databases = "both; without faults, PostgreSQL"
    parser.add_argument("--database", choices=[*KINDS, "both"], help=databases)
    parser.add_argument("--seed", type=int, help="repeat the faults and actions of a run")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy logs and samples there")
    parser.add_argument("--rate", type=float, default=30.0, help="users' actions per second")
    return parser.parse_args()


def main() -> None:
    given = _parse()
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    profile = (with_faults if given.faults else steady)(seed, given.rate)
    database = given.database or ("both" if given.faults else "postgresql")
    kinds = [kind for kind in KINDS if database in (kind, "both")]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        wrong = [kind for kind in kinds if _run(kind, given.seconds, profile, given.keep)]
    except (DidNotStart, TimeoutError, NoPostgres) as error:
        raise SystemExit(f"soak: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
