"""Space that uploads leave on the disk, however many of them are written at once. Blocking."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from common.storage.errors import OutOfSpace


class FreeSpace:
    """Keeps `least` bytes of a file system free; 0 keeps none.

    What is on the disk, of any process, the file system itself subtracts. What the threads of this
    process are about to write is reserved here, so that no two of them count on the same space.
    Several processes together may therefore leave less than `least`, by what each has in the hands
    of its threads at that moment: a chunk of at most 1 MiB each.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._lock = threading.Lock()
        self._reserved = 0

    @contextmanager
    def reserved(self, fd: int, size: int) -> Iterator[None]:
        """Reserve `size` bytes on the file system of `fd` while the context writes them.

        Raises `OutOfSpace` if less than `least` would be left.
        """
        if not self._least:
            yield
            return
        with self._lock:
            facts = os.fstatvfs(fd)
            left = facts.f_bavail * facts.f_frsize - self._reserved - size
            if left < self._least:
                raise OutOfSpace(f"{self._least} bytes must stay free, {left} would be left")
            self._reserved += size
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= size
