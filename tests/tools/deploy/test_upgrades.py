"""Expand, then contract: a migration leaves the version before it working beside the new one."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, inspect

from common.database.engine import Database
from common.database.schema import migrate, revisions

Schema = dict[str, dict[str, Any]]

ADOPTION = "0001"
"""Takes the existing service's database over, which is stopped for it (README.md)."""

REVISIONS = revisions()


def schema_of(connection: Connection) -> Schema:
    inspector = inspect(connection)
    return {
        table: {
            "columns": {
                column["name"]: {
                    "type": str(column["type"]),
                    "nullable": column["nullable"],
                    "optional": column["nullable"] or column["default"] is not None,
                }
                for column in inspector.get_columns(table)
            },
            "constraints": {
                *(("unique", *item["column_names"]) for item in _unique(inspector, table)),
                *(("check", item["sqltext"]) for item in inspector.get_check_constraints(table)),
                *(
                    ("foreign key", *item["constrained_columns"])
                    for item in inspector.get_foreign_keys(table)
                ),
            },
        }
        for table in inspector.get_table_names()
    }


def _unique(inspector: Any, table: str) -> Iterator[dict[str, Any]]:
    yield from inspector.get_unique_constraints(table)
    yield from (index for index in inspector.get_indexes(table) if index["unique"])


def broken_promises(before: Schema, after: Schema) -> list[str]:
    """Changes from `before` to `after` that break the version before."""
    broken = [f"table {table} is gone" for table in before.keys() - after.keys()]
    for table in before.keys() & after.keys():
        old, new = before[table]["columns"], after[table]["columns"]
        broken += [f"{table}.{name} is gone" for name in old.keys() - new.keys()]
        broken += [
            f"{table}.{name} must be given"
            for name in new.keys() - old.keys()
            if not new[name]["optional"]
        ]
        for name in old.keys() & new.keys():
            if old[name]["type"] != new[name]["type"]:
                broken.append(f"{table}.{name} has another type")
            if old[name]["nullable"] and not new[name]["nullable"]:
                broken.append(f"{table}.{name} may not be null any more")
        added = after[table]["constraints"] - before[table]["constraints"]
        broken += [f"{table} is constrained further: {item}" for item in sorted(added)]
    return sorted(broken)


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
async def test_every_migration_leaves_the_version_before_it_working(empty: Database) -> None:
    await migrate(empty, ADOPTION)
    async with empty.reading() as connection:
        before = await connection.run_sync(schema_of)
    for revision in REVISIONS[1:]:
        await migrate(empty, revision)
        async with empty.reading() as connection:
            after = await connection.run_sync(schema_of)
        assert broken_promises(before, after) == [], revision
        before = after


def _table(**columns: dict[str, Any]) -> Schema:
    given = {"type": "TEXT", "nullable": True, "optional": True}
    return {
        "jobs": {
            "columns": {name: {**given, **changes} for name, changes in columns.items()},
            "constraints": set(),
        }
    }


@pytest.mark.parametrize(
    ("after", "complaint"),
    [
        ({}, "table jobs is gone"),
        (_table(), "jobs.name is gone"),
        (_table(name={"type": "INTEGER"}), "jobs.name has another type"),
        (_table(name={"nullable": False}), "jobs.name may not be null any more"),
        (_table(name={}, more={"nullable": False, "optional": False}), "jobs.more must be given"),
    ],
)
def test_contracting_too_early_is_noticed(after: Schema, complaint: str) -> None:
    assert broken_promises(_table(name={}), after) == [complaint]


def test_a_new_constraint_is_noticed() -> None:
    after = _table(name={})
    after["jobs"]["constraints"] = {("unique", "name")}
    assert broken_promises(_table(name={}), after) == [
        "jobs is constrained further: ('unique', 'name')"
    ]
