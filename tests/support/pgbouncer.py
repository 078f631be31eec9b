"""PgBouncer in front of a PostgreSQL of the tests, pooling transactions.

From the binary on `PATH` (Debian: package `pgbouncer`); it refuses to run as root.
"""

import contextlib
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url

from deploy.sandbox.ports import free_port, wait_until_listening
from devtools.postgres import render
from devtools.watched import Watched, temporary_folder, unprivileged_user

# few server connections, so that a client gets another one for each transaction
CONFIGURATION = """
[databases]
* = host={host} port={server_port} user={user}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 500
server_login_retry = 1
unix_socket_dir =
"""


class PgBouncer:
    """A proxy that may be stopped and started again."""

    def __init__(self, server_url: str, home: Path) -> None:
        self._url = make_url(server_url)
        self._home = home
        self._port = free_port()
        self._running: Watched | None = None
        self._user = unprivileged_user()
        configuration = CONFIGURATION.format(
            host=self._url.host,
            server_port=self._url.port or 5432,
            user=self._url.username,
            password=f" password='{self._url.password}'" if self._url.password else "",
            port=self._port,
        )
        (home / "pgbouncer.ini").write_text(configuration)
        if self._user:
            shutil.chown(home, self._user)

    def url_of(self, database: str) -> str:
        return render(self._url.set(host="127.0.0.1", port=self._port, database=database))

    def start(self) -> None:
        """Start it; it accepts connections on return."""
        self._running = Watched(
            ["pgbouncer", str(self._home / "pgbouncer.ini")],
            log=self._home / "log",
            end=signal.SIGTERM,
            user=self._user,
        )
        running = self._running
        wait_until_listening(self._port, alive=lambda: not running.has_ended)

    def stop(self) -> None:
        """End it at once: what runs through it is cut off."""
        if self._running is not None:
            self._running.stop()
            self._running = None


def is_installed() -> bool:
    return shutil.which("pgbouncer") is not None


@contextlib.contextmanager
def running_pgbouncer(server_url: str) -> Iterator[PgBouncer]:
    """A proxy in front of the server at that URL, for any database of it."""
    with temporary_folder("opencloud-pgbouncer-") as home:
        proxy = PgBouncer(server_url, home)
        try:
            proxy.start()
            yield proxy
        finally:
            proxy.stop()
