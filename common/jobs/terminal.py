"""Workers' output as a terminal would show it: progress bars, colours, spinners. Pure.

`runtime_details` are stored as sent; what people read of them passes through here.
"""

import re
from typing import Final

# the control functions of ECMA-48 in their seven-bit and eight-bit forms; none crosses a line
_ESCAPE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, moves of the cursor
    # OSC, DCS, SOS, PM, APC: titles, hyperlinks
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"  # two bytes, and character sets
)
_INVISIBLE: Final = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_RUN: Final = re.compile(r"\x08+|[^\x08]+")


def as_shown(text: str) -> str:
    """The text without control characters except line feeds and tabs; idempotent, in linear time.

    What follows a carriage return replaces its line, a backspace moves back by one character that
    the next one overwrites, and escape sequences vanish as a whole, incomplete ones included.
    Unlike on a terminal, a line that is overwritten leaves nothing behind a shorter one.
    """
    visible = _INVISIBLE.sub("", _ESCAPE.sub("", text))
    if "\r" not in visible and "\b" not in visible:
        return visible
    return "\n".join(map(_line_as_shown, visible.split("\n")))


def _line_as_shown(line: str) -> str:
    latest = line.rstrip("\r\b").rpartition("\r")[2]
    if "\b" not in latest:
        return latest
    cells: list[str] = []
    cursor = 0
    for run in _RUN.findall(latest):
        if run[0] == "\b":
            cursor = max(0, cursor - len(run))
        else:
            cells[cursor : cursor + len(run)] = run
            cursor += len(run)
    return "".join(cells)
