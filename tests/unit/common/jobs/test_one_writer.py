"""Which modules write job rows and their history, read off the sources' statements."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.database.tables import job_events, jobs

ROOT = Path(__file__).resolve().parents[4]
TABLES = {jobs.name: jobs, job_events.name: job_events}
SQL = re.compile(r"\b(insert\s+into|update)\s+(jobs|job_events)\b", re.IGNORECASE)

Write = tuple[str, str, str, frozenset[str] | None]
"""Module, verb, table and columns; None for columns that are not written out."""


def writes_of(path: Path) -> Iterator[Write]:
    """What the module's statements write: `update(jobs).where(…).values(status=…)` and the like."""
    module = str(path.relative_to(ROOT))
    columns: dict[ast.AST, frozenset[str] | None] = {}
    for node in ast.walk(ast.parse(path.read_text())):  # a statement before what it is built on
        if isinstance(node, ast.Constant) and SQL.search(str(node.value)):
            yield module, "text", str(node.value), None
        if not isinstance(node, ast.Call):
            continue
        verb, table = _verb_and_table(node)
        if verb in {"insert", "update"} and table in TABLES:
            yield module, verb, table, columns.get(node)
        elif isinstance(node.func, ast.Attribute):
            names = [keyword.arg for keyword in node.keywords]
            if node.func.attr != "values":
                columns[node.func.value] = columns.get(node)
            elif not node.args and None not in names:
                columns[node.func.value] = frozenset(filter(None, names))


def _verb_and_table(call: ast.Call) -> tuple[str, str]:
    """Of `update(jobs)`, `dialect.insert(jobs)` and `jobs.update()`."""
    function, first = call.func, call.args[0] if call.args else None
    if isinstance(function, ast.Attribute):
        named = first if isinstance(first, ast.Name) else function.value
        return function.attr, named.id if isinstance(named, ast.Name) else ""
    verb = function.id if isinstance(function, ast.Name) else ""
    return verb, first.id if isinstance(first, ast.Name) else ""


def test_only_updates_writes_statuses_and_history() -> None:
    writes = {
        write
        for package in ("common", "gateway", "dispatcher", "notifier")
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts and path.name != "updates.py"
        for write in writes_of(path)
    }
    assert writes == {
        ("common/jobs/deletion.py", "update", "jobs", frozenset({"deleted_at"})),
        ("gateway/jobs/store.py", "insert", "jobs", frozenset({"date_created"})),
    }


@pytest.mark.parametrize(
    "source",
    [
        "update(jobs).where(x).values(last_seen_at=1)",
        "jobs.update().values(status='error')",
        "update(jobs).values({'status': 'error'})",
        "postgresql.insert(job_events).values(status='error')",
        "text('UPDATE jobs SET status = 1')",
    ],
)
def test_another_writer_is_found(source: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    module = tmp_path / "other.py"
    module.write_text(source)
    assert [columns in {None, frozenset({"status"}), frozenset({"last_seen_at"})}
            for *_, columns in writes_of(module)] == [True]  # fmt: skip
