"""Everything that runs while something is measured: set up per database, taken down at exit."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import orjson

from benchmarks import seed
from benchmarks.database import Kind, TestDatabase, driver_settings, fresh_database
from benchmarks.identity import CLIENT, INTERNAL_KEY, POOL, REGION, Identity, make_identity
from benchmarks.messages import Caller
from benchmarks.options import Options
from benchmarks.processes import Child, running
from common.database.engine import Database
from common.database.schema import migrate
from deploy.sandbox.ports import LOOPBACK, free_port
from devtools.postgres import Server, run_apart


@dataclass(kw_only=True)
class Stage:
    """The gateway, the stand-ins and the bare handlers, ready for requests."""

    options: Options
    database: TestDatabase
    folder: Path
    identity: Identity
    gateway: Child
    gateway_port: int
    bare_port: int
    bare_pid: int
    standins_port: int
    settings: dict[str, str]

    @property
    def tree(self) -> Path:
        """The caller's directory."""
        return self.folder / "user_data" / self.identity.user

    @property
    def user(self) -> Caller:
        """Sends with the user's token."""
        headers = {"Authorization": f"Bearer {self.identity.token}"}
        return Caller(host=LOOPBACK, port=self.gateway_port, headers=headers)

    @property
    def peer(self) -> Caller:
        """Sends to the gateway as the worker-facing API does."""
        headers = {"x-api-key": INTERNAL_KEY}
        return Caller(host=LOOPBACK, port=self.gateway_port, headers=headers)

    def bare(self, caller: Caller) -> Caller:
        """The same caller, sending to the bare handlers."""
        return Caller(host=caller.host, port=self.bare_port, headers=caller.headers)

    def ask_gateway(self, target: str) -> bytes:
        """One answer of the gateway. Raises `urllib.error.HTTPError`."""
        url = f"http://{LOOPBACK}:{self.gateway_port}{target}"
        with urlopen(Request(url, headers=dict(self.user.headers))) as answer:
            body: bytes = answer.read()
        return body

    def ask_standins(self, target: str, method: str = "GET") -> Any:
        """What the stand-ins tell."""
        with urlopen(Request(f"{self.standins_url}{target}", method=method)) as answer:
            return orjson.loads(answer.read())

    @property
    def standins_url(self) -> str:
        return f"http://{LOOPBACK}:{self.standins_port}"

    @contextmanager
    def dispatchers(self, count: int) -> Iterator[list[Child]]:
        """So many dispatchers, ready to work."""
        with ExitStack() as stack:
            started = [service("dispatcher", self.settings, self.folder) for _ in range(count)]
            children = [stack.enter_context(child) for child, _ in started]
            for child, (_, ready) in zip(children, started, strict=True):
                child.wait_until(ready)
            yield children


def service(
    name: str, settings: dict[str, str], folder: Path
) -> tuple[AbstractContextManager[Child], str]:
    """A service that runs while in the context, and the URL that answers once it is ready."""
    port = free_port()
    own = {**settings, "ADMIN_PORT": str(port)}
    child = running(name, settings=own, folder=folder, name=f"{name}-{port}")
    return child, f"http://{LOOPBACK}:{port}/readyz"


@contextmanager
def set_up(options: Options, kind: Kind, server: Server | None) -> Iterator[Stage]:
    """Start everything that the benchmarks share; all of it is gone afterwards."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="opencloud-bench-", dir=options.folder))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        identity = make_identity()
        keys = folder / "jwks.json"
        keys.write_bytes(orjson.dumps(identity.key_set))
        seed.make_tree(folder / "user_data", identity.user)
        (folder / "bare").mkdir()
        database = stack.enter_context(fresh_database(kind, server, folder))
        run_apart(_migrate(database.url))
        gateway_port, bare_port, standins_port = free_port(), free_port(), free_port()
        pids = {}
        for name, port, more in (
            ("standins", standins_port, ("--keys", str(keys))),
            ("bare", bare_port, ("--folder", str(folder / "bare"))),
        ):
            command = (f"benchmarks.{name}", "--port", str(port), *more)
            child = stack.enter_context(running(*command, settings={}, folder=folder, name=name))
            child.wait_until(f"http://{LOOPBACK}:{port}/bytes/2")
            pids[name] = child.pid
        settings = _settings(folder, database, gateway_port, f"http://{LOOPBACK}:{standins_port}")
        started, ready = service("gateway", settings, folder)
        gateway = stack.enter_context(started)
        gateway.wait_until(ready)
        yield Stage(
            options=options,
            database=database,
            folder=folder,
            identity=identity,
            gateway=gateway,
            gateway_port=gateway_port,
            bare_port=bare_port,
            bare_pid=pids["bare"],
            standins_port=standins_port,
            settings=settings,
        )


def _settings(folder: Path, database: TestDatabase, port: int, standins: str) -> dict[str, str]:
    """The services' whole environment; the application configuration is the repository's."""
    return {
        "PROD": "true",
        "FILESYSTEM": "local",
        "USER_DATA_ROOT_PATH": str(folder / "user_data"),
        "DATABASE_URL": database.url,
        "WORKERFACING_API_URL": standins,
        "INTERNAL_API_KEY_SECRET": INTERNAL_KEY,
        "COGNITO_CLIENT_ID": CLIENT,
        "COGNITO_USER_POOL_ID": POOL,
        "COGNITO_REGION": REGION,
        "COGNITO_JWKS_URL": f"{standins}/jwks.json",
        "HOST": LOOPBACK,
        "PORT": str(port),
        "LOG_FORMAT": "json",
    }


async def _migrate(url: str) -> None:
    database = Database(driver_settings(url))
    try:
        await migrate(database)
    finally:
        await database.close()
