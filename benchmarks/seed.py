"""Rows and files that exist before a measurement."""

import gzip
import tarfile
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from common.storage.paths import PREDEFINED
from common.webhooks.keys import SecretBox
from devtools.database import RawDatabase

APPLICATION: Final = {"application": "decode", "version": "v0_10_1", "entrypoint": "train"}
ATTRIBUTES: Final[dict[str, Any]] = {
    "files_down": {"config_id": "exp1", "data_ids": ["exp1"], "artifact_ids": []},
    "env_vars": {},
}
HARDWARE: Final = dict.fromkeys(("cpu_cores", "memory", "gpu_model", "gpu_archi", "gpu_mem"))

WEBHOOK_KEY: Final = "the benchmarks' key for secrets of webhooks"
OTHER_USERS: Final = 1_000
"""One job of the history in ten is the caller's; these users own the others."""

_PAYLOAD: Final = {
    "job": {
        "app": {"cmd": ["/docker/entrypoint.sh", "--train", "--model_path=/data/model"], "env": {}},
        "handler": {
            "image_url": "public.ecr.aws/w2b7b8c0/decode-cloud/decode:v0_10_1",
            "image_name": "decode", "image_version": "v0_10_1", "entrypoint": "train",
            "files_down": {
                "config/param.yaml": "user_data/somebody/config/exp1/param.yaml",
                "data/frames.mat": "user_data/somebody/data/exp1/frames.mat",
            },
            "files_up": {"log": "log", "artifact": "model"},
        },
        "meta": {"date_created": "2026-01-01T12:00:00.123456"},
        "hardware": HARDWARE,
    },
    "environment": "cloud",
    "group": None,
    "priority": 0,
    "paths_upload": {
        kind: f"user_data/somebody/{kind}/train_1" for kind in ("output", "log", "artifact")
    },
}  # fmt: skip
PAYLOAD: Final = orjson.dumps(_PAYLOAD).decode()
"""A hand-over as the gateway writes it: the dispatcher adds `meta.job_id`."""


def add_jobs(
    database: RawDatabase, count: int, *, user: str, prefix: str, status: str = "finished"
) -> list[int]:
    """Add jobs; returns their ids. `user` is an SQL expression that may use `n`.

    Jobs of any status but `queued` have a worker, last seen now.
    """
    ((before,),) = database.fetch("SELECT coalesce(max(id), 0) FROM jobs")
    assigned = status != "queued"
    paths = {kind: f"{kind}/{prefix}_{{n}}" for kind in ("output", "log", "artifact")}
    values = {
        "id": f"{before} + n",
        "user_id": user,
        "user_email": "'user@example.com'",
        "job_name": f"'{prefix}_' || n",
        "date_created": database.ago(f"{count} - n"),
        "date_started": database.ago(f"{count} - n") if assigned else "NULL",
        "date_finished": database.ago("0") if status == "finished" else "NULL",
        "status": f"'{status}'",
        "environment": "'cloud'",
        "priority": "0",
        "paths_out": _json(database, paths).replace("{n}", "' || n || '"),
        "application": _json(database, APPLICATION),
        "attributes": _json(database, ATTRIBUTES),
        "hardware": _json(database, HARDWARE),
        "last_seen_at": database.ago("0") if assigned else "NULL",
        "worker_number": f"{before} + n" if assigned else "NULL",
    }
    database.execute(
        f"INSERT INTO jobs ({', '.join(values)})"
        f" SELECT {', '.join(values.values())} FROM {database.series(count)}"
    )
    if not database.is_sqlite:
        sequence = "pg_get_serial_sequence('jobs', 'id')"
        database.execute(f"SELECT setval({sequence}, (SELECT max(id) FROM jobs))")
    return list(range(before + 1, before + count + 1))


def _json(database: RawDatabase, value: object) -> str:
    return database.json(_quoted(orjson.dumps(value).decode()))


def add_handovers(database: RawDatabase, ids: Sequence[int]) -> None:
    """Add pending hand-overs of 50 users for the jobs with these consecutive ids."""
    values = {
        "state": "'pending'",
        "attempts": "0",
        "due_at": database.ago("1"),
        "created_at": database.ago("1"),
        "job_id": "id",
        "number": "id",
        "priority": "priority",
        "user_id": "'benchmark-' || id % 50",
        "turn": "id",
        "correlation_id": "'benchmark-' || id",
        "payload": _quoted(PAYLOAD),
    }
    database.execute(
        f"INSERT INTO handovers ({', '.join(values)}) SELECT {', '.join(values.values())}"
        f" FROM jobs WHERE id BETWEEN {ids[0]} AND {ids[-1]}"
    )


def add_webhooks(database: RawDatabase, urls: Sequence[str]) -> None:
    """Replace all webhooks by one for each of the URLs, each of a user of its own."""
    database.execute("DELETE FROM webhooks")
    sealed = SecretBox([WEBHOOK_KEY]).seal(f"whsec_{b64encode(bytes(32)).decode()}")
    rows = ", ".join(
        f"('hook-{n}', {_quoted(url)}, '[]', '[]', {_quoted(sealed)}, {database.ago('0')})"
        for n, url in enumerate(urls)
    )
    columns = "user_id, url, events, labels, secret, created_at"
    database.execute(f"INSERT INTO webhooks ({columns}) VALUES {rows}")


def add_messages(database: RawDatabase, count: int) -> None:
    """Add so many due messages, to all webhooks in turn; each names a number of its own."""
    data = _quoted(PAYLOAD[:-1] + ', "job_id": ')
    row = {
        "state": "'pending'",
        "due_at": database.ago("0"),
        "created_at": database.ago("0"),
        "webhook_id": "first + n % hooks",
        "message": "'msg_' || first || '_' || n",
        "event": "'job.finished'",
        "payload": f"{data} || n || '}}'",
    }
    database.execute(
        f"INSERT INTO webhook_deliveries ({', '.join(row)}) SELECT {', '.join(row.values())}"
        f" FROM {database.series(count)},"
        " (SELECT min(id) AS first, count(*) AS hooks FROM webhooks) AS all_hooks"
    )


def add_mails(database: RawDatabase, ids: Sequence[int]) -> None:
    """Add a due mail for each of the jobs with these consecutive ids, by which it is looked up."""
    values = {
        "state": "'pending'",
        "due_at": database.ago("1"),
        "created_at": database.ago("1"),
        "job_id": "id",
        "user_id": "user_id",
        "kind": "status",
        "recipient": "user_email",
        "custom_id": "id",
    }
    database.execute(
        f"INSERT INTO emails ({', '.join(values)}) SELECT {', '.join(values.values())}"
        f" FROM jobs WHERE id BETWEEN {ids[0]} AND {ids[-1]}"
    )


def add_history(database: RawDatabase, count: int, user: str) -> None:
    """Fill the table with finished jobs, as years of use do."""
    owner = f"CASE WHEN n % 10 = 0 THEN '{user}' ELSE 'user-' || (n % {OTHER_USERS}) END"
    add_jobs(database, count, user=owner, prefix="history")
    database.execute("ANALYZE")


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def make_tree(root: Path, user: str) -> Path:
    """Make the user's directory with the inputs of the jobs to submit; returns it."""
    tree = root / user
    for name in PREDEFINED:
        (tree / name).mkdir(parents=True, exist_ok=True)
    add_files(tree / "config" / "exp1", ["param.yaml"], 200)
    add_files(tree / "data" / "exp1", ["frames.mat"], 200)
    return tree


def add_many_files(root: Path, count: int, size: int) -> None:
    """Add files of `size` bytes each, in folders of a thousand."""
    for start in range(0, count, 1_000):
        numbers = range(start, min(start + 1_000, count))
        add_files(root / f"{start:06d}", [f"frame_{n:06d}.tif" for n in numbers], size)


def write_archives(folder: Path, count: int, size: int) -> dict[str, Path]:
    """Tars of such files by what they are, plain and compressed."""
    tree, plain, compressed = (folder / f"packed{ending}" for ending in ("", ".tar", ".tar.gz"))
    add_many_files(tree, count, size)
    with tarfile.open(plain, "w") as archive:
        archive.add(tree, ".")
    compressed.write_bytes(gzip.compress(plain.read_bytes()))
    return {"tar": plain, "tar.gz": compressed}


def add_files(folder: Path, names: Sequence[str], size: int) -> None:
    """Add files of `size` bytes each."""
    folder.mkdir(parents=True, exist_ok=True)
    content = bytes(range(256)) * (size // 256 + 1)
    for name in names:
        (folder / name).write_bytes(content[:size])
