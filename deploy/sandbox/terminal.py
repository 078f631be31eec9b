"""Output with colours on a terminal, plain lines elsewhere."""

import os
import sys
from pathlib import Path
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def is_fancy() -> bool:
    """Whether standard output shows colours and can rewrite its last line."""
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def paint(text: str, *styles: str) -> str:
    if not is_fancy():
        return text
    return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def say(text: str = "") -> None:
    """Print one line and flush."""
    _write(text, sys.stdout)


def complain(text: str) -> None:
    """Print one line to standard error."""
    _write(text, sys.stderr)


def _write(text: str, stream: TextIO) -> None:
    """The reader may be gone (a closed terminal, `| head`): discard the rest."""
    try:
        print(text, file=stream, flush=True)
    except OSError:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
