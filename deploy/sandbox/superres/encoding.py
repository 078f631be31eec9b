"""The encoding of a text file: UTF-8, or what programs on Windows write."""

import codecs
from pathlib import Path
from typing import Final

from deploy.sandbox.superres import InputError

_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CHUNK: Final = 1 << 20


def encoding_of(path: Path) -> str:
    """UTF-8, UTF-16, UTF-32 or Windows-1252. Raises `InputError` for what is none of them."""
    with path.open("rb") as file:
        start = file.read(64)
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            candidates: tuple[str, ...] = (encoding,)
            break
    else:
        # most characters of a table or a configuration have a zero byte in UTF-16
        candidates = ("utf-8", "cp1252")
        if start[1:2] == b"\0":
            candidates = ("utf-16-le",)
        elif start[:1] == b"\0":
            candidates = ("utf-16-be",)
    for encoding in candidates:
        if _is_text(path, encoding):
            return encoding
    raise InputError(
        f"{path.name} is not a text file in UTF-8, UTF-16 or Windows-1252: save it as UTF-8."
    )


def _is_text(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    with path.open("rb") as file:
        try:
            while chunk := file.read(_CHUNK):
                text = decoder.decode(chunk)
                # every picture is Windows-1252 otherwise
                if encoding == "cp1252" and "\0" in text:
                    return False
            decoder.decode(b"", final=True)
        except UnicodeError:
            return False
    return True
