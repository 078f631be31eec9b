"""Names for repetitions of a job: `train-2`, `train-3`, …"""

import re
from collections.abc import Iterator
from itertools import count
from typing import Final

from common.storage.paths import MAX_NAME_BYTES

_NUMBERED: Final = re.compile(r"(.+)-(0|[1-9][0-9]*)", re.DOTALL)


def following(name: str) -> Iterator[str]:
    """The names that may follow `name`, without end; shortened where they leave no room."""
    numbered = _NUMBERED.fullmatch(name)
    base, last = (numbered[1], int(numbered[2])) if numbered else (name, 1)
    encoded = base.encode()
    for number in count(last + 1):
        ending = f"-{number}"
        yield encoded[: MAX_NAME_BYTES - len(ending)].decode(errors="ignore") + ending
