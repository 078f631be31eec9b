"""The dispatcher's settings. All times are in seconds."""

from dataclasses import dataclass, field

from common.config.environment import Reader, without_credentials
from common.config.settings import (
    DEFAULT_APPLICATIONS,
    AdminSettings,
    DatabaseSettings,
    LogSettings,
    StorageSettings,
    read_admin,
    read_database,
    read_idempotency_retention,
    read_logs,
    read_silence_margin,
    read_stale_after,
    read_storage,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The worker-facing API's address, and the limits of calls, waits and sweeps.

    `status_path`, unless empty, contains `{job_id}`. A hand-over's row is kept for
    `handover_retention` after it is settled, the answer under an idempotency key for
    `idempotency_retention`. A job counts as stalled after its application's time-out
    (`silence_default_timeout` if it has none) plus `silence_margin`. A user's files are measured
    every `usage_interval` at most.
    """

    database: DatabaseSettings
    storage: StorageSettings
    admin: AdminSettings
    logs: LogSettings
    applications: str
    worker_api_url: str
    internal_key: str = field(repr=False)
    status_path: str
    handover_timeout: float
    handover_grace: float
    handover_concurrency: int
    handover_retention: float
    idempotency_retention: float
    stale_after: float
    silence_default_timeout: float
    silence_margin: float
    reconcile_interval: float
    usage_interval: float
    shutdown_grace: float

    @property
    def summary(self) -> dict[str, str]:
        """What is in use, without secrets."""
        return {
            "database": self.database.address,
            "storage": self.storage.place,
            "applications": self.applications,
            "peer": without_credentials(self.worker_api_url),
        }


def load(reader: Reader) -> Settings:
    """Read the environment; `reader.check()` reports its faults."""
    return Settings(
        database=read_database(reader),
        storage=read_storage(reader),
        admin=read_admin(reader, 9001),
        applications=reader.text("APPLICATION_CONFIG_FILE", DEFAULT_APPLICATIONS),
        worker_api_url=reader.http_url("WORKERFACING_API_URL", "http://127.0.0.1:8001"),
        internal_key=reader.secret("INTERNAL_API_KEY_SECRET", required=True),
        status_path=_status_path(reader),
        handover_timeout=reader.seconds("HANDOVER_TIMEOUT", 30.0, least=0.1),
        handover_grace=reader.seconds("HANDOVER_GRACE", 60.0),
        handover_concurrency=reader.whole("HANDOVER_CONCURRENCY", 16, least=1, most=256),
        handover_retention=reader.seconds("HANDOVER_RETENTION", 86_400.0),
        idempotency_retention=read_idempotency_retention(reader),
        stale_after=read_stale_after(reader),
        silence_default_timeout=reader.seconds("SILENCE_DEFAULT_TIMEOUT", 86_400.0),
        silence_margin=read_silence_margin(reader),
        reconcile_interval=reader.seconds("RECONCILE_INTERVAL", 15.0, least=0.1),
        usage_interval=reader.seconds("USAGE_INTERVAL", 300.0, least=0.1),
        shutdown_grace=reader.seconds("SHUTDOWN_GRACE", 40.0),
        logs=read_logs(reader),
    )


def _status_path(reader: Reader) -> str:
    path = reader.text("WORKERFACING_STATUS_PATH")
    if path and (not path.startswith("/") or "{job_id}" not in path):
        reader.fault("WORKERFACING_STATUS_PATH must start with a slash and hold {job_id}")
    return path
