"""The programs of the sandbox with their complete settings."""

import os
import sys
from collections.abc import Mapping
from typing import Final

from deploy.sandbox import aws
from deploy.sandbox.cognito import UserPool
from deploy.sandbox.layout import MARKER, REPOSITORY, Folder, Ports, SandboxError, url
from deploy.sandbox.ports import LOOPBACK
from deploy.sandbox.processes import Program

INTERNAL_KEY: Final = "sandbox-internal-key"
BUCKET: Final = "opencloud-sandbox"
_PREFIX: Final = "user_data"

_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
# settings of the services that the sandbox passes on
_OVERRIDES: Final = (
    "APPLICATION_CONFIG_FILE",
    "DATABASE_SECRET",
    "DATABASE_STATEMENT_CACHE",
    "DATABASE_URL",
    "FILESYSTEM",
    "FRONTEND_URL",
    "HANDOVER_GRACE",
    "HANDOVER_TIMEOUT",
    "LOG_LEVEL",
    "WEBHOOK_GIVE_UP_AFTER",
    "WEBHOOK_RETRY_DELAYS",
    "WORKERFACING_STATUS_PATH",
)


class Catalogue:
    """The sandbox's programs for a folder, ports and the user's variables.

    Raises `SandboxError` for an invalid variable.
    """

    def __init__(
        self, folder: Folder, ports: Ports, variables: Mapping[str, str] = os.environ
    ) -> None:
        self._folder = folder
        self._ports = ports
        self._given = {name: variables[name] for name in _OVERRIDES if variables.get(name)}
        if self.filesystem not in ("local", "s3"):
            raise SandboxError(f"FILESYSTEM must be local or s3, not {self.filesystem!r}.")
        # children run outside of the repository, so that no .env file is read
        self._base = {
            **{name: variables[name] for name in _KEPT if name in variables},
            MARKER: str(folder.root),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def filesystem(self) -> str:
        return self._given.get("FILESYSTEM", "local")

    @property
    def users_files(self) -> str:
        """The place of the users' files, for display."""
        if self.filesystem == "local":
            return str(self._folder.user_data)
        return f"s3://{BUCKET}/{_PREFIX}    (in the AWS stand-in, lost when it stops)"

    @property
    def uses_sqlite(self) -> bool:
        return self._given.get("DATABASE_URL", "sqlite").startswith("sqlite")

    def aws(self) -> Program:
        command = aws.moto_command(self._ports.aws)
        # a new process would have no accounts
        return self._program(
            "aws", command, {}, ready=f"{url(self._ports.aws)}/moto-api/", restarts=False
        )

    def mailjet(self) -> Program:
        file = str(self._folder.root / "mails.jsonl")
        command = self._python("deploy.sandbox.mailjet", f"--port={self._ports.mail}", "--file")
        ready = f"{url(self._ports.mail)}/_counters"
        return self._program("mailjet", [*command, file], {}, ready=ready)

    def peer(self) -> Program:
        journal = str(self._folder.root / "peer_queue.jsonl")
        variables = {
            **aws.environment(url(self._ports.aws)),
            "PORT": str(self._ports.peer),
            "USERFACING_API_URL": url(self._ports.gateway),
            "INTERNAL_API_KEY_SECRET": INTERNAL_KEY,
            **self._storage(),
        }
        asked = ["--can-be-asked"] if "WORKERFACING_STATUS_PATH" in self._given else []
        command = self._python("deploy.sandbox.peer", "--journal", journal, "--silence=15", *asked)
        return self._program(
            "peer", command, variables, ready=f"{url(self._ports.peer)}/openapi.json"
        )

    def worker(self) -> Program:
        command = self._python(
            "deploy.sandbox.worker",
            *("--peer", url(self._ports.peer)),
            *("--name", "w1"),
            *("--workspace", str(self._folder.root / "work")),
        )
        return self._program("worker", command, {})

    def services(self, pool: UserPool, key_arn: str) -> list[Program]:
        """Gateway, dispatcher and notifier, with the commands of production."""
        shared = self.service_environment(pool, key_arn)
        ports = self._ports
        programs = []
        for name, admin, ready in (
            ("gateway", ports.gateway_admin, f"{url(ports.gateway)}/"),
            ("dispatcher", ports.dispatcher_admin, f"{url(ports.dispatcher_admin)}/readyz"),
            ("notifier", ports.notifier_admin, f"{url(ports.notifier_admin)}/readyz"),
        ):
            variables = {**shared, "ADMIN_HOST": LOOPBACK, "ADMIN_PORT": str(admin)}
            programs.append(self._program(name, self._python(name), variables, ready=ready))
        return programs

    def migration(self, pool: UserPool, key_arn: str) -> Program:
        variables = self.service_environment(pool, key_arn)
        return self._program("migrate", self._python("common.migrate"), variables)

    def service_environment(self, pool: UserPool, key_arn: str) -> dict[str, str]:
        """The settings that the three services share."""
        return {
            **aws.environment(pool.endpoint),
            **pool.environment(),
            "PROD": "0",
            "DATABASE_URL": f"sqlite:///{self._folder.database}",
            "WORKERFACING_API_URL": url(self._ports.peer),
            "INTERNAL_API_KEY_SECRET": key_arn,
            "APPLICATION_CONFIG_FILE": str(REPOSITORY / "deploy/sandbox/applications.yaml"),
            "EMAIL_SENDER_SERVICE": "mailjet",
            "EMAIL_SENDER_ADDRESS": "no-reply@example.com",
            "EMAIL_SENDER_API_KEY": "sandbox-mail-user",
            "EMAIL_SENDER_SECRET_KEY": "sandbox-mail-key",
            "EMAIL_SENDER_API_URL": url(self._ports.mail),
            "FRONTEND_URL": "http://localhost:8080",
            "PUBLIC_URL": url(self._ports.gateway),
            "WEBHOOK_ALLOW_PRIVATE": "true",
            "HOST": LOOPBACK,
            "PORT": str(self._ports.gateway),
            "LOG_FORMAT": "json",
            **self._storage(),
            **self._given,
        }

    def _storage(self) -> dict[str, str]:
        if self.filesystem == "local":
            return {"FILESYSTEM": "local", "USER_DATA_ROOT_PATH": str(self._folder.user_data)}
        return {
            "FILESYSTEM": self.filesystem,
            "USER_DATA_ROOT_PATH": _PREFIX,
            "S3_BUCKET": BUCKET,
            "S3_REGION": aws.REGION,
        }

    @staticmethod
    def _python(module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", module, *arguments]

    def _program(
        self,
        name: str,
        command: list[str],
        variables: Mapping[str, str],
        *,
        ready: str | None = None,
        restarts: bool = True,
    ) -> Program:
        return Program(
            name=name,
            command=command,
            environment={**self._base, **variables},
            folder=self._folder.root,
            log=self._folder.log(name),
            ready=ready,
            restarts=restarts,
        )
