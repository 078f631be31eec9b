"""nginx as a baseline for downloads, where it is installed."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.sandbox.lifeline import tied_to_parent
from deploy.sandbox.ports import LOOPBACK, free_port, wait_until_listening

_CONFIGURATION: Final = """
daemon off;
master_process off;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  sendfile on;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
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
    port, file = free_port(), home / "nginx.conf"
    file.write_text(_CONFIGURATION.format(home=home, folder=folder, host=LOOPBACK, port=port))
    command = [program, "-p", str(home), "-e", str(home / "error.log"), "-c", str(file)]
    process = subprocess.Popen(tied_to_parent(command, signal.SIGTERM), start_new_session=True)
    try:
        wait_until_listening(port)
        yield port
    finally:
        process.terminate()
        process.wait()
