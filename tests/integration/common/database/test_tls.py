"""TLS to PostgreSQL: `verify-full` connects to the server of the URL and refuses any other."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from common.config.environment import Reader, SettingsError
from common.config.settings import DatabaseSettings, read_database
from common.database.engine import Database
from common.database.errors import DatabaseRefused
from common.database.notify import _connect_arguments
from devtools.postgres import OwnServer, own_server, unprivileged_user

KEY = ["-x509", "-days", "1", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]


def issue(folder: Path, name: str, *arguments: str) -> None:
    """Write `name.key` and `name.crt`: an authority, unless the arguments name one."""
    files = ["-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}"]
    subprocess.run(
        ["openssl", "req", *KEY, *files, *arguments], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Two authorities, and a certificate of the first one for `localhost`."""
    with tempfile.TemporaryDirectory(prefix="opencloud-tls-") as name:
        folder = Path(name)
        issue(folder, "ca")
        issue(folder, "other-ca")
        signed = [
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]
        issue(folder, "server", *signed, "-addext", "subjectAltName=DNS:localhost")
        if os.geteuid() == 0:  # the server runs as another user
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, unprivileged_user())
        yield folder


@pytest.fixture(scope="module")
def tls_server(folder: Path) -> Iterator[OwnServer]:
    with own_server() as server:
        server.execute(f"ALTER SYSTEM SET ssl_cert_file = '{folder}/server.crt'")
        server.execute(f"ALTER SYSTEM SET ssl_key_file = '{folder}/server.key'")
        server.execute("ALTER SYSTEM SET ssl = on")
        server.stop()
        server.start()
        yield server


def settings(monkeypatch: pytest.MonkeyPatch, url: str) -> DatabaseSettings:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.delenv("DATABASE_SECRET", raising=False)
    reader = Reader()
    found = read_database(reader)
    reader.check()
    return found


def url_of(server: OwnServer, host: str, query: str) -> str:
    return f"postgresql://postgres@{host}:{make_url(server.url).port}/postgres?{query}"


async def test_pool_and_listen_connection_verify_the_server(
    tls_server: OwnServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = f"sslmode=verify-full&sslrootcert={folder}/ca.crt"
    found = settings(monkeypatch, url_of(tls_server, "localhost", query))
    encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"

    database = Database(found)
    async with database.reading() as connection:
        assert (await connection.execute(text(encrypted))).scalar_one() is True
    await database.close()
    listening: Any = await asyncpg.connect(**_connect_arguments(found.url))
    assert await listening.fetchval(encrypted) is True
    await listening.close()


@pytest.mark.parametrize(
    ("host", "query", "sentence"),
    [
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={}/ca.crt", "not valid for '127.0.0.1'"),
        ("localhost", "sslmode=verify-full&sslrootcert={}/other-ca.crt", "verify failed"),
        ("localhost", "sslmode=verify-full", "root certificate file .* does not exist"),
        ("localhost", "sslmode=always", "`sslmode` parameter must be one of"),
    ],
    ids=["another host", "another authority", "no authority", "unknown mode"],
)
async def test_a_server_that_cannot_be_verified_is_refused_at_once(
    tls_server: OwnServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    query: str,
    sentence: str,
) -> None:
    monkeypatch.setenv("HOME", str(folder))  # without .postgresql/root.crt
    database = Database(settings(monkeypatch, url_of(tls_server, host, query.format(folder))))
    with pytest.raises(DatabaseRefused, match=sentence):
        await database.ping()
    await database.close()


@pytest.mark.parametrize("file", ["missing.crt", "ca.key"])
def test_a_file_without_certificates_is_a_wrong_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    url = f"postgresql://u@h/n?sslmode=verify-full&sslrootcert={folder}/{file}"
    with pytest.raises(SettingsError, match="DATABASE_URL names an sslrootcert that is no"):
        settings(monkeypatch, url)
