"""Environments as the services' own settings modules read them."""

import os
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import dispatcher.settings
import gateway.settings
import notifier.settings
from common.config.environment import Reader
from common.config.settings import read_database, read_logs

LOADERS: Mapping[str, Any] = {
    "gateway": gateway.settings.load,
    "dispatcher": dispatcher.settings.load,
    "notifier": notifier.settings.load,
    "migrate": lambda reader: (read_database(reader), read_logs(reader)),
}

AFTER_THE_GRACE = 15.0
"""Seconds that a daemon may need once its grace is over: three times 2 for what is cancelled
then, 5 for ticks, 2 for late probes, and closing."""


def read(service: str, environment: Mapping[str, str]) -> tuple[Any, set[str]]:
    """The service's settings in this environment, and the names that it knows.

    Raises `SettingsError` for what is missing or wrong.
    """
    reader = Reader()
    with (
        patch.dict(os.environ, environment, clear=True),
        # the file of certificates is in the cluster, not here
        patch("common.config.database_url.check_certificates", lambda _: None),
    ):
        settings = LOADERS[service](reader)
    reader.check()
    return settings, reader.names


def names_of(service: str) -> set[str]:
    """Every name that the service reads."""
    reader = Reader()
    LOADERS[service](reader)
    return reader.names
