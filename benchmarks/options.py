"""What `make bench` can be told."""

import argparse
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from benchmarks.database import KINDS, Kind


@dataclass(frozen=True, kw_only=True)
class Options:
    """`seconds` per figure and side, in `slices` that alternate with the floor's; `size` in MiB;
    `forwarded` jobs per dispatcher; `listed` files in a directory, `tree_files` in a large tree;
    `reporting` jobs that run."""

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
    listed: int = 500
    tree_files: int = 100_000
    rows_behind: int = 1_000_000
    forwarded: int = 4_000
    reporting: int = 10_000
    use_wrk: bool = False
    markdown: bool = False
    json: Path | None = None
    folder: Path | None = None
    listing: bool = False


def parse(arguments: list[str], names: Collection[str]) -> Options:
    """Read the command line; ends the process with a sentence if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", choices=sorted(names))
    parser.add_argument("--all", dest="everything", action="store_true", help="the long ones too")
    parser.add_argument("--list", dest="listing", action="store_true", help="show the names")
    parser.add_argument("--database", default="both", choices=[*KINDS, "both"])
    parser.add_argument("--seconds", type=float, default=3.0, help="per figure")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--size", type=int, default=512, help="MiB of the large transfers")
    parser.add_argument(
        "--history", type=int, default=0, metavar="N",
        help="measure the job requests again with N finished jobs in the table",
    )  # fmt: skip
    parser.add_argument("--wrk", dest="use_wrk", action="store_true", help="wrk sends plain GETs")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument(
        "--folder", type=Path, help="where files and databases lie; default: a temporary directory"
    )
    found = vars(parser.parse_args(arguments))
    database = found.pop("database")
    found["databases"] = KINDS if database == "both" else (database,)
    found["only"] = tuple(found["only"])
    return Options(**found)
