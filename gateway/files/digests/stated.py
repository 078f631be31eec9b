"""The SHA-256 that a form states of its file: as a field, or in the headers of the file's part."""

import re
from typing import Final

from gateway.files.multipart import FormReader
from gateway.http.digest_fields import MalformedDigest, read_digest
from gateway.http.errors import Fault, Invalid, shortened

FIELD: Final = "sha256"
HEX: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


class StatedDigest:
    """What a form states of its file, wherever it does; for one form."""

    def __init__(self, form: FormReader) -> None:
        self._form = form
        self._of_headers: set[str] = set()

    def read_headers(self) -> None:
        """Take over what the headers of the current part state. Raises `Invalid`."""
        for name, lines in self._form.digests.items():
            try:
                found = read_digest(lines)
            except MalformedDigest as error:
                given = shortened(", ".join(lines))
                raise _invalid(f"{given!r} given as {name}: {error}") from error
            if found is not None:
                self._of_headers.add(found)

    def value(self) -> str | None:
        """The digest that was stated so far, in hexadecimal; None for none.

        Raises `Invalid` if it is malformed, or if there are several.
        """
        # forms of people send a field that is left empty, too
        fields = (value.strip() for value in self._form.values)
        found = {*self._of_headers, *(_read_field(value) for value in fields if value)}
        if len(found) > 1:
            raise _invalid(f"{' and '.join(sorted(found)[:2])} given: they contradict each other")
        return next(iter(found), None)

    def check(self, sha256: str) -> None:
        """Raise `Invalid` unless the file has the digest that was stated, if one was."""
        stated = self.value()
        if stated not in {None, sha256}:
            raise _invalid(f"{stated} given, but the file that arrived has {sha256}")


def _read_field(value: bytes) -> str:
    text = value.decode("utf-8", "replace")
    if not HEX.fullmatch(text):
        raise _invalid(f"{shortened(text)!r} given: it must be 64 hexadecimal digits")
    return text.lower()


def _invalid(sentence: str) -> Invalid:
    return Invalid(Fault(["body", FIELD], f"Value error, {sentence}", "value_error"))
