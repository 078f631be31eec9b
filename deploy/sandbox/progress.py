"""Shows the statuses of a job: a live line on a terminal, plain lines elsewhere."""

import asyncio
import time
from typing import Final

from deploy.sandbox.terminal import is_fancy, paint, say

STEPS: Final = (
    "queued",
    "pulled",
    "preprocessing",
    "running",
    "postprocessing",
    "finished",
)
_SPINNER: Final = "|/-\\"
_BAR: Final = 24
_TURN_EVERY: Final = 0.1


class Progress:
    """Shows the latest status, with a bar below it while `turn` runs."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._last = ""
        self._turn = 0

    def show(self, status: str) -> None:
        """Print a status if it is new."""
        if status != self._last:
            self._last = status
            self._erase()
            style = {"error": "red", "finished": "green"}.get(status, "cyan")
            say(f"  {self._seconds():6.1f} s  {paint(status, style)}")

    async def turn(self) -> None:
        """Redraw the bar for ever."""
        while True:
            self._draw(self._last)
            await asyncio.sleep(_TURN_EVERY)

    def _draw(self, status: str) -> None:
        if is_fancy() and status not in ("finished", "error"):
            self._turn += 1
            done = STEPS.index(status) * _BAR // (len(STEPS) - 1) if status in STEPS else 0
            bar = "#" * done + "." * (_BAR - done)
            spin = _SPINNER[self._turn % len(_SPINNER)]
            print(f"\r  {self._seconds():6.1f} s  [{bar}] {spin}", end="", flush=True)

    def end(self) -> None:
        self._erase()

    def _erase(self) -> None:
        if is_fancy():
            print("\r\x1b[2K", end="", flush=True)

    def _seconds(self) -> float:
        return time.monotonic() - self._began
