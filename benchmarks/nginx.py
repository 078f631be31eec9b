"""nginx as a floor for downloads, where it is installed."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.processes import Child, environment
from deploy.sandbox.lifeline import tied_to_parent
from deploy.sandbox.ports import LOOPBACK, free_port

_CONFIGURATION: Final = """
daemon off;
master_process off;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  sendfile on;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  server {{ listen {host}:{port}; root {folder}; }}
}}
"""


@contextmanager
def serving(folder: Path, home: Path) -> Iterator[int | None]:
    """The port on which nginx serves the files of `folder`; None where it is not installed."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        yield None
        return
    home.mkdir()
    port = free_port()
    configuration = home / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(home=home, folder=folder, host=LOOPBACK, port=port)
    )
    log = home / "output.log"
    command = [program, "-p", str(home), "-e", str(log), "-c", str(configuration)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            tied_to_parent(command, signal.SIGTERM),
            env=environment({}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    child = Child(process, log)
    with contextlib.closing(_Stopping(child)):
        name = next(path.name for path in folder.iterdir())
        child.wait_until(f"http://{LOOPBACK}:{port}/{name}")
        yield port


class _Stopping:
    """Stops the process when closed."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def close(self) -> None:
        self._child.stop()
