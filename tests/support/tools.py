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


def _package_file(path: str) -> Path:
    return CLIENTS / "node_modules" / path


def needs_file(path: str) -> Any:
    """Skip the test where a file of a package of npm's is missing."""
    package = path.partition("/")[0]
    return pytest.mark.skipif(not _package_file(path).exists(), reason=f"{package}: not installed")


def script(path: str) -> str:
    """The text of a package's file, which the test `needs_file`."""
    return _package_file(path).read_text()
