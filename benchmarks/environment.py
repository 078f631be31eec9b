"""The processes that run during the measurements, set up once per database."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self
from urllib.request import Request, urlopen

import orjson

from benchmarks import seed
from benchmarks.messages import Endpoint
from benchmarks.options import Options
from benchmarks.seed import WEBHOOK_KEY
from deploy.sandbox.ports import LOOPBACK, free_port
from devtools.certificate import HOST, write_certificate
from devtools.database import Kind, RawDatabase, fresh_database
from devtools.postgres import Server, own_server, run_apart
from devtools.services import Process
from devtools.user_pool import INTERNAL_KEY, USER, Issuer, trust

_MAIL: Final = {
    "EMAIL_SENDER_SERVICE": "mailjet",
    "EMAIL_SENDER_ADDRESS": "no-reply@example.org",
    "EMAIL_SENDER_API_KEY": "mailjet-key",
    "EMAIL_SENDER_SECRET_KEY": "mailjet-secret",
    "PUBLIC_URL": "https://api.example.org",
}


def service_settings(
    folder: Path, database: RawDatabase, *, peer: str, keys: str
) -> dict[str, str]:
    """The settings that all services share; the application configuration is the repository's."""
    return {
        "PROD": "true",
        "FILESYSTEM": "local",
        "USER_DATA_ROOT_PATH": str(folder / "user_data"),
        "DATABASE_URL": database.url,
        "WORKERFACING_API_URL": peer,
        "LOG_FORMAT": "json",
        "MAX_CONCURRENT_REQUESTS": "0",  # one user makes all the requests
        **trust(f"{keys}/jwks.json"),
    }


@contextmanager
def database_server() -> Iterator[Server]:
    """The server of `TEST_DATABASE_URL`, else a durable one of our own. Raises `NoPostgres`."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield Server(url)
        return
    with own_server(durable=True) as server:
        yield server


class Environment:
    """The gateway, the stand-ins and the bare handlers, ready for requests. A context.

    `history` is the number of finished jobs added to the table.
    """

    def __init__(self, options: Options, kind: Kind, server: Server | None) -> None:
        self.options = options
        self.history = 0
        self.pool = Issuer()
        self._kind: Kind = kind
        self._server = server
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="opencloud-bench-", dir=self.options.folder))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.database = stack.enter_context(
                fresh_database(self._kind, self._server, self.folder)
            )
            seed.make_tree(self.folder / "user_data", USER)
            self._start_processes()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_processes(self) -> None:
        keys, bare = self.folder / "jwks.json", self.folder / "bare"
        keys.write_bytes(orjson.dumps({"keys": [self.pool.jwk]}))
        bare.mkdir()
        self.certificate, self.tls_port = self.folder / "certificate.pem", free_port()
        write_certificate(self.certificate)
        self.standins = self._start_tool(
            "benchmarks.standins", keys, self.tls_port, self.certificate
        )
        self.handlers = self._start_tool("benchmarks.baselines.handlers", bare)
        self.settings = service_settings(
            self.folder, self.database, peer=self.standins_url, keys=self.standins_url
        )
        self.gateway_port = free_port()
        address = {"HOST": LOOPBACK, "PORT": self.gateway_port}
        self.gateway = Process("gateway", {**self.settings, **address}, self.folder, group=0)
        self._stack.callback(self.gateway.stop)
        _wait_until_ready(self.standins, self.handlers, self.gateway)

    def _start_tool(self, module: str, *arguments: object) -> Process:
        port = free_port()
        words = [str(port), *map(str, arguments)]
        process = Process(
            module, {}, self.folder, admin_port=port, arguments=words, group=0, ready="/bytes/2"
        )
        self._stack.callback(process.stop)
        return process

    @property
    def tree(self) -> Path:
        """The user's directory."""
        return self.folder / "user_data" / USER

    @property
    def user(self) -> Endpoint:
        """The gateway, with the user's token."""
        return Endpoint(LOOPBACK, self.gateway_port, self.pool.headers(USER))

    @property
    def peer(self) -> Endpoint:
        """The gateway, with the internal key of the worker-facing API."""
        return Endpoint(LOOPBACK, self.gateway_port, {"x-api-key": INTERNAL_KEY})

    def bare(self, endpoint: Endpoint) -> Endpoint:
        """The bare handlers, with the same headers."""
        return replace(endpoint, port=self.handlers.admin_port)

    def ask_gateway(self, target: str) -> bytes:
        """The body of a response to the user. Raises `urllib.error.HTTPError`."""
        url = f"http://{LOOPBACK}:{self.gateway_port}{target}"
        with urlopen(Request(url, headers=dict(self.user.headers))) as response:
            body: bytes = response.read()
        return body

    def ask_standins(self, target: str, method: str = "GET") -> Any:
        """A response of the stand-ins."""
        with urlopen(Request(f"{self.standins_url}{target}", method=method)) as response:
            return orjson.loads(response.read())

    @property
    def standins_url(self) -> str:
        return f"http://{LOOPBACK}:{self.standins.admin_port}"

    @property
    def standins_tls_url(self) -> str:
        """The stand-ins over TLS, with a certificate that notifiers trust."""
        return f"https://{HOST}:{self.tls_port}"

    def dispatcher(self) -> AbstractContextManager[Process]:
        """Run a dispatcher, which is ready."""
        return self._daemon("dispatcher")

    def notifier(self) -> AbstractContextManager[Process]:
        """Run a notifier, which is ready, for mails and for webhooks on this machine."""
        webhooks = {
            "WEBHOOK_KEY": WEBHOOK_KEY,
            "WEBHOOK_ALLOW_PRIVATE": "true",
            "SSL_CERT_FILE": str(self.certificate),  # OpenSSL's
        }
        mails = {**_MAIL, "EMAIL_SENDER_API_URL": self.standins_url}
        return self._daemon("notifier", **mails, **webhooks)

    @contextmanager
    def _daemon(self, service: str, **own: str) -> Iterator[Process]:
        process = Process(service, {**self.settings, **own}, self.folder, group=0)
        try:
            _wait_until_ready(process)
            yield process
        finally:
            process.stop()


def _wait_until_ready(*processes: Process) -> None:
    async def wait() -> None:
        await asyncio.gather(*(process.wait_until_ready() for process in processes))

    run_apart(wait())
