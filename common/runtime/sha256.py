"""SHA-256 whose state can be stored, and restored by another process.

`hashlib` cannot do that: OpenSSL's functions of this digest can, in the library that `hashlib`
itself uses (docs/adr/0017-state-of-a-digest.md).
"""

import _hashlib
import ctypes
import ctypes.util
import struct
from functools import cache
from typing import Any, Final

_CONTEXT: Final = struct.Struct("=8I2I64s2I")
"""OpenSSL's `SHA256_CTX`: the chaining value, the length in bits (low word first), the block that
is not full yet and its length, the length of the digest."""

_STORED: Final = struct.Struct(">8IQ")
"""The chaining value and the length in bits; the block that is not full yet follows."""


class NoSha256(Exception):
    """There is no OpenSSL library with these functions."""


@cache
def load() -> Any:
    """The library. Raises `NoSha256`."""
    for name in (getattr(_hashlib, "__file__", None), ctypes.util.find_library("crypto")):
        if name:
            try:
                library = ctypes.CDLL(name)
                library.SHA256_Update.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
            except (OSError, AttributeError):
                continue
            return library
    raise NoSha256("no OpenSSL library (libcrypto) with SHA256_Update was found")


class Sha256:
    """SHA-256 of bytes that arrive in pieces. For one thread at a time."""

    def __init__(self, state: bytes = b"") -> None:
        """`state`: one that `state()` returned, of the bytes so far."""
        self._context = ctypes.create_string_buffer(_CONTEXT.size)
        load().SHA256_Init(self._context)
        if state:
            *chain, bits = _STORED.unpack_from(state)
            block, last = state[_STORED.size :], _CONTEXT.unpack(self._context.raw)[-1]
            self._context.raw = _CONTEXT.pack(
                *chain, bits & 0xFFFFFFFF, bits >> 32, block, len(block), last
            )

    def update(self, data: bytearray, start: int = 0, end: int | None = None) -> None:
        """Add `data[start:end]`, without a copy; other threads run meanwhile."""
        length = (len(data) if end is None else end) - start
        if length > 0:
            view = (ctypes.c_char * length).from_buffer(data, start)
            load().SHA256_Update(self._context, view, length)

    def state(self) -> bytes:
        """What `Sha256(state)` goes on from, on any machine; at most 103 bytes."""
        *chain, low, high, block, length, _ = _CONTEXT.unpack(self._context.raw)
        stored: bytes = _STORED.pack(*chain, high << 32 | low) + block[:length]
        return stored

    def digest(self) -> bytes:
        """The digest of the bytes so far; more may follow."""
        found = (ctypes.c_char * 32)()
        copied = ctypes.create_string_buffer(self._context.raw, _CONTEXT.size)
        load().SHA256_Final(found, copied)
        return bytes(found)
