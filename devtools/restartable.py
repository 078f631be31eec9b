"""A process that is killed and started again."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from deploy.sandbox.ports import LOOPBACK, free_port
from devtools.services import Process


class Restartable:
    """`python -m <module>`, always on the same ports; started at once. Options as of `Process`."""

    def __init__(
        self, name: str, module: str, settings: Mapping[str, Any], folder: Path, **options: Any
    ) -> None:
        self.name = name
        options.setdefault("admin_port", free_port())
        self._start = partial(Process, module, settings, folder, group=0, **options)
        self.process = self._start()

    @property
    def url(self) -> str:
        """Of the admin port."""
        return f"http://{LOOPBACK}:{self.process.admin_port}"

    def kill(self) -> None:
        self.process.kill()

    def ensure_running(self) -> None:
        """Start the process if it has ended; from the main thread, which it is tied to."""
        if not self.process.is_running:
            self.process = self._start()
