"""Which modules write job rows and their history, read off the sources' statements."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.config.settings import REPOSITORY

WRITE = re.compile(
    r"\b(?:insert|update)\s*\(\s*(?:jobs|job_events)\b"
    r"|\b(?:jobs|job_events)\s*\.\s*(?:insert|update)\b"
    r"|\b(?:insert\s+into|update)\s+(?:jobs|job_events)\b",
    re.IGNORECASE,
)
VALUES = re.compile(r"\.values\((\w+)=[\w.]+\([^()]*\)\)")


def writes_of(path: Path) -> Iterator[tuple[str, str]]:
    """Module and column of each statement that writes the tables; an empty column: it may be any.

    What the statement writes has to stand in it: `update(jobs).where(…).values(column=…())`.
    """
    statements = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.stmt)
    ]
    parts = (part for statement in statements for part in ast.iter_child_nodes(statement))
    for text in (ast.unparse(part) for part in parts if not isinstance(part, ast.stmt)):
        for write in WRITE.finditer(text):
            found = VALUES.search(text, write.start())
            yield path.name, found[1] if found else ""


def test_only_updates_writes_statuses_and_history() -> None:
    writes = {
        write
        for package in ("common", "gateway", "dispatcher", "notifier")
        for path in (REPOSITORY / package).rglob("*.py")
        if "migrations" not in path.parts and path.name != "updates.py"
        for write in writes_of(path)
    }
    assert writes == {
        ("deletion.py", "deleted_at"),
        ("insertion.py", "date_created"),
    }


@pytest.mark.parametrize(
    "source",
    [
        "update(jobs).where(x).values(last_seen_at=1)",
        "jobs.update().values(status='error')",
        "update(jobs).values({'status': 'error'})",
        "postgresql.insert(job_events).values(status='error')",
        "update(jobs).values(deleted_at=utc_now(), status=f())",
        "change = update(jobs)\nother.values(deleted_at=utc_now())",
        "text('UPDATE jobs SET status = 1')",
    ],
)
def test_another_writer_is_found(source: str, tmp_path: Path) -> None:
    module = tmp_path / "other.py"
    module.write_text(source)
    assert [column in {"", "status", "last_seen_at"} for _, column in writes_of(module)] == [True]
