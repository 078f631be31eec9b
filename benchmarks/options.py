"""The options of `python -m benchmarks`."""

import argparse
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from devtools.database import KINDS, Kind


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run, and how large.

    Each figure and its baseline take `seconds`, in `slices` that alternate. Large bodies have
    `size` MiB and are moved `repeats` times. `unpacked` is the files of an archive, `listed` those
    in a directory, `tree_files` those in a large tree, `running` and `forwarded` numbers of jobs,
    `streams` those that are open.
    """

    only: tuple[str, ...] = ()
    everything: bool = False
    databases: tuple[Kind, ...] = KINDS
    seconds: float = 3.0
    slices: int = 3
    connections: int = 32
    size: int = 512
    repeats: int = 3
    history: int = 0
    small_files: int = 20_000
    unpacked: int = 10_000
    listed: int = 500
    tree_files: int = 100_000
    running: int = 10_000
    forwarded: int = 4_000
    streams: int = 1_000
    folder: Path | None = None


def parse(arguments: list[str], names: Collection[str]) -> Options:
    """Parse the command line; exits with a message if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    shown = ", ".join(names)
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", choices=names, help=shown)
    parser.add_argument("--all", dest="everything", action="store_true", help="the long ones too")
    parser.add_argument("--database", default="both", choices=[*KINDS, "both"])
    parser.add_argument("--seconds", type=float, default=3.0, help="per figure")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--size", type=int, default=512, help="MiB of a large transfer")
    again = "repeat what uses a database with N finished jobs"
    parser.add_argument("--history", type=int, default=0, metavar="N", help=again)
    parser.add_argument("--folder", type=Path, help="for files and databases, not the system's")
    found = vars(parser.parse_args(arguments))
    database = found.pop("database")
    found["databases"] = KINDS if database == "both" else (database,)
    found["only"] = tuple(found["only"])
    return Options(**found)
