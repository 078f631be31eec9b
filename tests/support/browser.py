"""Chromium without a window, driven by its DevTools protocol."""

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from deploy.sandbox.lifeline import tied_to_parent
from devtools.waiting import eventually

_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--remote-debugging-port=0", "--window-size=1200,1600",
)  # fmt: skip


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol; its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def run(self, script: str) -> Any:
        """The value of an expression of JavaScript, awaited if it is a promise."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def until(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true."""

        async def holds() -> bool:
            return bool(await self.run(f"Boolean({condition})"))

        await eventually(holds, within=60)


@asynccontextmanager
async def open_page(program: Path, profile: Path) -> AsyncIterator[Page]:
    """A page of a browser of its own, which keeps its files in `profile`."""
    command = [str(program), *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    silent = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *tied_to_parent(command, signal.SIGKILL), stdout=silent, stderr=silent
    )
    try:
        port = profile / "DevToolsActivePort"
        await eventually(lambda: port.exists() and len(port.read_text().split()) == 2, within=60)
        url = f"http://127.0.0.1:{port.read_text().split()[0]}/json/list"
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as answer:
                pages = json.loads(await answer.text())
            (address,) = (p["webSocketDebuggerUrl"] for p in pages if p["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
