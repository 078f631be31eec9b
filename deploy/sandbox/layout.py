"""The sandbox's files and ports."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.sandbox.ports import LOOPBACK, is_free

REPOSITORY: Final = Path(__file__).resolve().parents[2]
MARKER: Final = "OPENCLOUD_SANDBOX"


class SandboxError(Exception):
    """The sandbox cannot start or continue; the message is a sentence for the user."""


@dataclass(frozen=True)
class Folder:
    """The sandbox's working folder, the only place that it writes to."""

    root: Path = REPOSITORY / ".sandbox"

    @property
    def database(self) -> Path:
        return self.root / "sql_app.db"

    @property
    def user_data(self) -> Path:
        return self.root / "user_data"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def run_file(self) -> Path:
        """Addresses and accounts for the demo; exists while the sandbox is up."""
        return self.root / "run.json"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def create(self) -> None:
        for folder in (self.root, self.user_data, self.root / "logs", self.root / "work"):
            folder.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)  # it holds passwords and tokens


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Ports of 127.0.0.1, each with a variable that changes it."""

    gateway: int
    peer: int
    mail: int
    aws: int
    gateway_admin: int
    dispatcher_admin: int
    notifier_admin: int

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> "Ports":
        """Raises `SandboxError` naming a variable that is no port."""

        def port(variable: str, default: int) -> int:
            text = variables.get(variable, "").strip() or str(default)
            if not text.isdecimal() or not 0 < int(text) < 65_534:
                raise SandboxError(f"{variable} must be a port number, not {text!r}.")
            return int(text)

        admin = port("ADMIN_PORT", 9000)
        return cls(
            gateway=port("PORT", 8000),
            peer=port("PEER_PORT", 8001),
            mail=port("MAIL_PORT", 8025),
            aws=port("AWS_PORT", 8002),
            gateway_admin=admin,
            dispatcher_admin=admin + 1,
            notifier_admin=admin + 2,
        )

    def check_free(self) -> None:
        """Raises `SandboxError` naming a port that is taken and how to change it."""
        uses = {
            "gateway": (self.gateway, "PORT"),
            "worker-facing API": (self.peer, "PEER_PORT"),
            "mail page": (self.mail, "MAIL_PORT"),
            "AWS stand-in": (self.aws, "AWS_PORT"),
            "gateway's probes": (self.gateway_admin, "ADMIN_PORT"),
            "dispatcher's probes": (self.dispatcher_admin, "ADMIN_PORT"),
            "notifier's probes": (self.notifier_admin, "ADMIN_PORT"),
        }
        seen: dict[int, str] = {}
        for use, (port, variable) in uses.items():
            if port in seen:
                raise SandboxError(f"Port {port} is set for the {seen[port]} and for the {use}.")
            seen[port] = use
            if not is_free(port):
                raise SandboxError(
                    f"Port {port}, for the {use}, is taken by another program: stop that program "
                    f"or choose another port, for example {variable}={port + 100} make run."
                )


def url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"
