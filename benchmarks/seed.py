"""What is there before something is measured: rows and files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.database import TestDatabase
from common.storage.paths import PREDEFINED

APPLICATION: Final = {"application": "decode", "version": "v0_10_1", "entrypoint": "train"}
ATTRIBUTES: Final[dict[str, Any]] = {
    "files_down": {"config_id": "exp1", "data_ids": ["exp1"], "artifact_ids": []},
    "env_vars": {},
}
HARDWARE: Final = dict.fromkeys(("cpu_cores", "memory", "gpu_model", "gpu_archi", "gpu_mem"))

OTHER_USERS: Final = 1_000
"""Of the history, one job in ten is the caller's; the others' are spread over so many."""

_PAYLOAD: Final = {
    "job": {
        "app": {"cmd": ["/docker/entrypoint.sh", "--train", "--model_path=/data/model"], "env": {}},
        "handler": {
            "image_url": "public.ecr.aws/w2b7b8c0/decode-cloud/decode:v0_10_1",
            "image_name": "decode",
            "image_version": "v0_10_1",
            "entrypoint": "train",
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
}
PAYLOAD: Final = orjson.dumps(_PAYLOAD).decode()
"""A hand-over as the gateway writes it: without `meta.job_id`, which the dispatcher fills in."""


def add_jobs(
    database: TestDatabase, count: int, *, user: str, prefix: str, status: str = "finished"
) -> list[int]:
    """Add jobs; returns their ids. `user` is an SQL expression that may use `n`.

    With any status but `queued` a worker has been heard of them just now.
    """
    before = _newest(database)
    paths = ", ".join(
        f'"{kind}":"{kind}/{prefix}_' + '{n}"' for kind in ("output", "log", "artifact")
    )
    heard = status != "queued"
    values = {
        "user_id": user,
        "user_email": "'user@example.com'",
        "job_name": f"'{prefix}_' || n",
        "date_created": database.ago(f"{count} - n"),
        "date_started": database.ago(f"{count} - n") if heard else "NULL",
        "date_finished": database.ago("0") if status == "finished" else "NULL",
        "status": f"'{status}'",
        "paths_out": database.json(_quoted("{" + paths + "}").replace("{n}", "' || n || '")),
        "environment": "'cloud'",
        "priority": "0",
        "application": database.json(_quoted(orjson.dumps(APPLICATION).decode())),
        "attributes": database.json(_quoted(orjson.dumps(ATTRIBUTES).decode())),
        "hardware": database.json(_quoted(orjson.dumps(HARDWARE).decode())),
        "last_seen_at": database.ago("0") if heard else "NULL",
        "worker_number": f"{before} + n" if heard else "NULL",
        "id": f"{before} + n",
    }
    sequence = "SELECT setval(pg_get_serial_sequence('jobs', 'id'), (SELECT max(id) FROM jobs))"
    database.execute(
        f"INSERT INTO jobs ({', '.join(values)})"
        f" SELECT {', '.join(values.values())} FROM {database.series(count)}",
        *([] if database.is_sqlite else [sequence]),
    )
    return list(range(before + 1, before + count + 1))


def add_handovers(database: TestDatabase, ids: Sequence[int], *, state: str = "pending") -> None:
    """Add a hand-over for each of the jobs with these consecutive ids."""
    settled = state in {"done", "failed"}
    values = {
        "state": f"'{state}'",
        "attempts": "1" if settled else "0",
        "due_at": database.ago("1"),
        "created_at": database.ago("1"),
        "settled_at": database.ago("0") if settled else "NULL",
        "job_id": "id",
        "number": "id",
        "priority": "priority",
        "correlation_id": "'benchmark-' || id",
        "payload": _quoted(PAYLOAD),
    }
    database.execute(
        f"INSERT INTO handovers ({', '.join(values)}) SELECT {', '.join(values.values())}"
        f" FROM jobs WHERE id BETWEEN {ids[0]} AND {ids[-1]}"
    )


def add_history(database: TestDatabase, count: int, user: str) -> None:
    """Fill the table with finished jobs, as years of use would."""
    owner = f"CASE WHEN n % 10 = 0 THEN '{user}' ELSE 'user-' || (n % {OTHER_USERS}) END"
    add_jobs(database, count, user=owner, prefix="history")
    database.execute("ANALYZE")


def _newest(database: TestDatabase) -> int:
    return int(database.fetch("SELECT coalesce(max(id), 0) FROM jobs")[0][0])


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def make_tree(root: Path, user: str) -> Path:
    """The user's directory with the two inputs of the jobs that are submitted; returns it."""
    tree = root / user
    for name in PREDEFINED:
        (tree / name).mkdir(parents=True, exist_ok=True)
    add_files(tree / "config" / "exp1", ["param.yaml"], 200)
    add_files(tree / "data" / "exp1", ["frames.mat"], 200)
    return tree


def add_files(folder: Path, names: Sequence[str], size: int) -> None:
    """Add files of `size` bytes each."""
    folder.mkdir(parents=True, exist_ok=True)
    content = bytes(range(256)) * (size // 256 + 1)
    for name in names:
        (folder / name).write_bytes(content[:size])
