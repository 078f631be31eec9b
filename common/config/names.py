"""Names in `.env` that nothing reads, but that are close to one that a service reads."""

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_EXAMPLE: Final = Path(__file__).resolve().parents[2] / ".env.example"
"""The file that lists every variable of every service; the image lacks it, and needs no `.env`."""

_LIKENESS: Final = 0.8
"""From which ratio of `difflib` a name counts as a misspelling: DATABSE_URL has 0.96."""

_OTHERS: Final = ("AWS_", "BOTO_")
"""Prefixes of variables that libraries read; AWS_REGION is not S3_REGION misspelt."""


def misspelt(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those of the names that no service reads, each with the name that was likely meant."""
    try:
        known = re.findall(r"^([A-Z0-9_]+)=", _EXAMPLE.read_text(), re.MULTILINE)
    except OSError:
        return
    for name in names:
        if name in known or name.startswith(_OTHERS):
            continue
        if likely := difflib.get_close_matches(name.upper(), known, n=1, cutoff=_LIKENESS):
            yield name, likely[0]
