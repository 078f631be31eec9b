"""Programs that some tests need and the lock file does not bring."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from devtools.services import REPOSITORY

CLIENTS = REPOSITORY / ".clients"
"""Where `make clients` installs generators of clients, and linters."""


def _find(name: str) -> str | None:
    own = (CLIENTS / "bin", CLIENTS / "node_modules/.bin")
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, own)))


def needs(*names: str) -> Any:
    """Skip the test where one of these programs is missing."""
    missing = [name for name in names if _find(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)}: not installed")


def tool(name: str) -> Path:
    """The program, which the test `needs`."""
    found = _find(name)
    assert found is not None, name
    return Path(found)
