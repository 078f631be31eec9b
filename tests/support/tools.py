"""Programs that some tests need and the lock file does not bring."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from devtools.services import REPOSITORY

CLIENTS = REPOSITORY / ".clients"
"""Where `make clients` installs generators of clients, HTTP clients, and linters."""


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


def _python_with(module: str) -> str | None:
    if find_spec(module) is not None:
        return sys.executable
    python = CLIENTS / "bin/python"
    return str(python) if list(CLIENTS.glob(f"lib/python3*/site-packages/{module}")) else None


def needs_module(name: str) -> Any:
    """Skip the test where the module is neither installed nor among `make clients`."""
    return pytest.mark.skipif(_python_with(name) is None, reason=f"{name}: not installed")


def python_with(module: str) -> str:
    """An interpreter that has the module, which the test `needs`."""
    found = _python_with(module)
    assert found is not None, module
    return found
