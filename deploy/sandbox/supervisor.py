"""Starts the sandbox's programs in order, restarts those that end, stops them in reverse."""

import asyncio
import json
import time
from collections.abc import Callable

import aiohttp

from deploy.sandbox import aws, cognito
from deploy.sandbox.exclusive import Children
from deploy.sandbox.layout import Folder, Ports, SandboxError, url
from deploy.sandbox.ports import NotReadyError
from deploy.sandbox.processes import Child, Program, describe_end, last_lines
from deploy.sandbox.programs import BUCKET, INTERNAL_KEY, Catalogue
from deploy.sandbox.terminal import paint, say

_QUICK = 5.0  # a child that ran for less than this (s) crashed quickly
_MOST_QUICK_CRASHES = 4


class Supervisor:
    """Owns the children. `start` and `watch` raise `SandboxError`; `stop` must follow."""

    def __init__(
        self,
        folder: Folder,
        ports: Ports,
        session: aiohttp.ClientSession,
        catalogue: Catalogue,
        on_restart: Callable[[dict[str, int]], None],
    ) -> None:
        self._ports = ports
        self._session = session
        self._catalogue = catalogue
        self._on_restart = on_restart
        self._pids = Children(folder)
        self._children: dict[str, Child] = {}
        self._crashes: dict[str, int] = {}

    async def start(self) -> None:
        """Start everything in the order of its dependencies, independent programs together."""
        await self._start(self._catalogue.aws())
        (pool, key_arn), *_ = await asyncio.gather(
            asyncio.to_thread(self._fill_aws),
            self._start(self._catalogue.mailjet()),
            self._start(self._catalogue.peer()),
        )
        if not self._catalogue.uses_sqlite:
            await self._migrate(self._catalogue.migration(pool, key_arn))
        gateway, *daemons = self._catalogue.services(pool, key_arn)
        await self._start(gateway)  # it creates the tables on SQLite
        await asyncio.gather(*map(self._start, [*daemons, self._catalogue.worker()]))

    def _fill_aws(self) -> tuple[cognito.UserPool, str]:
        endpoint = url(self._ports.aws)
        pool = cognito.create_user_pool(endpoint)
        aws.create_bucket(endpoint, BUCKET)
        secret = json.dumps({"password": INTERNAL_KEY})
        return pool, aws.create_secret(endpoint, "internal-api-key", secret)

    async def _start(self, program: Program) -> None:
        program.log.unlink(missing_ok=True)
        child = await self._spawn(program)
        try:
            await child.until_ready(self._session)
        except NotReadyError as error:
            raise SandboxError(self._report(program, f"did not start: {error}")) from error
        say(f"  {paint('ok', 'green')}  {program.name}")

    async def _spawn(self, program: Program) -> Child:
        child = self._children[program.name] = await Child.start(program)
        self._pids.remember(child.pid)
        return child

    async def _migrate(self, program: Program) -> None:
        program.log.unlink(missing_ok=True)
        say("  ..  database (waiting for it, up to a minute)")
        child = await self._spawn(program)
        status = await child.wait()
        del self._children[program.name]
        if status != 0:
            raise SandboxError(
                self._report(program, f"could not prepare the database ({describe_end(status)})")
            )
        say(f"  {paint('ok', 'green')}  database migrated")

    async def watch(self, stop: asyncio.Event) -> None:
        """Restart what ends, until `stop`. Raises `SandboxError` if a restart is of no use."""
        stopping = asyncio.create_task(stop.wait())
        guards = {asyncio.create_task(self._guard(child)) for child in self._children.values()}
        done, _ = await asyncio.wait({stopping, *guards}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, *guards):
            task.cancel()
        await asyncio.gather(stopping, *guards, return_exceptions=True)
        for task in guards & done:
            task.result()  # raises the reason for giving up

    async def _guard(self, child: Child) -> None:
        while True:
            status = await child.wait()
            child = await self._replace(child, describe_end(status))

    async def _replace(self, dead: Child, end: str) -> Child:
        program = dead.program
        if not program.restarts:
            raise SandboxError(
                self._report(program, f"ended ({end}), and the accounts are gone with it")
            )
        crashes = self._crashes.get(program.name, 0) + 1 if dead.lifetime < _QUICK else 0
        self._crashes[program.name] = crashes
        if crashes >= _MOST_QUICK_CRASHES:
            raise SandboxError(self._report(program, f"ended {crashes} times in a row ({end})"))
        say()
        say(paint(self._report(program, f"ended after {dead.lifetime:.0f} s ({end})"), "yellow"))
        if crashes:
            await asyncio.sleep(0.5 * crashes)
        child = await self._spawn(program)
        self._on_restart(self.pids())
        since = time.monotonic()
        try:
            await child.until_ready(self._session)
        except NotReadyError:
            if child.is_alive:
                raise SandboxError(self._report(program, "did not restart")) from None
            return child  # its end is handled next
        took = time.monotonic() - since
        say(paint(f"{program.name} runs again (process {child.pid}, {took:.1f} s).", "green"))
        return child

    def _report(self, program: Program, what: str) -> str:
        lines = [f"{program.name} {what}; the last lines of {program.log}:"]
        lines += [f"    {line}" for line in last_lines(program.log)] or ["    (nothing)"]
        return "\n".join(lines)

    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {name: child.pid for name, child in self._children.items()}

    async def stop(self, *, at_once: asyncio.Event) -> None:
        """Stop the children in reverse order, and kill them once `at_once` is set."""
        for name, child in reversed(self._children.items()):
            if not child.is_alive:
                continue
            stopping = asyncio.create_task(child.stop())
            hurry = asyncio.create_task(at_once.wait())
            await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if not stopping.done():
                child.kill()
            if not await stopping:
                say(f"  {name} had to be killed")
        self._pids.forget_all()
