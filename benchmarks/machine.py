"""What the figures were measured on."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

_LIBRARIES: Final = ("aiohttp", "uvloop", "asyncpg", "SQLAlchemy")


def describe(postgresql: str | None) -> list[tuple[str, str]]:
    """Name and value of what matters; `postgresql` is the server's version, if one was used."""
    facts = [
        ("processor", _processor()),
        ("cores", str(os.cpu_count() or "?")),
        ("memory", _memory()),
        ("load before the run", " ".join(f"{load:.2f}" for load in os.getloadavg())),
        ("system", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
        ("libraries", ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)),
    ]
    if postgresql is not None:
        facts.append(("PostgreSQL", postgresql))
    return facts


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size / 1024**3:.1f} GiB"
