"""The machine that the figures belong to."""

import contextlib
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Final

from devtools.database import RawDatabase
from devtools.postgres import Server

_LIBRARIES: Final = ("aiohttp", "uvloop", "asyncpg", "SQLAlchemy")


def describe(server: Server | None) -> list[tuple[str, str]]:
    """Names and values; with the version and durability of a PostgreSQL server."""
    facts = [
        ("processor", _processor()),
        ("cores", str(os.cpu_count() or "?")),
        ("memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1024**3:.1f} GiB"),
        ("load before the run", " ".join(f"{load:.2f}" for load in os.getloadavg())),
        ("system", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
        ("libraries", ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)),
    ]
    if server is not None:
        facts.append(("PostgreSQL", _version(server)))
    return facts


def _version(server: Server) -> str:
    database = RawDatabase(server.url)
    names = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
    version, *settings = (str(database.fetch(f"SHOW {name}")[0][0]) for name in names)
    shown = (f"{name} {value}" for name, value in zip(names[1:], settings, strict=True))
    return f"{version} ({', '.join(shown)})"


def _processor() -> str:
    with contextlib.suppress(OSError):  # only Linux has it
        text = Path("/proc/cpuinfo").read_text()
        if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()
