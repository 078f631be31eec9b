"""Digests in the database: one row for a path, about the version of the file that was there.

The version is the storage's ETag. A row counts only where the file at its path has that very ETag,
so nothing that happens to the file by other means has to be noticed; what such changes leave behind
is swept (`dispatcher.digests`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ARRAY, Text, and_, any_, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, padded, utc_now
from common.database.tables import file_digests
from common.storage.paths import UserPath

_DIGESTS: Final = file_digests.c
_KEY: Final = (_DIGESTS.user_id, _DIGESTS.path)


@dataclass(frozen=True, slots=True)
class Noted:
    """The digest, in hexadecimal, of the file at `path` (relative to the tree) with this ETag."""

    user_id: str
    path: str
    etag: str
    sha256: str

    @classmethod
    def of(cls, path: UserPath, etag: str, sha256: str) -> "Noted":
        return cls(path.user, "/".join(path.parts), etag, sha256)


_NAMES: Final = ("user_id", "path", "etag", "sha256")


def _upsert(new: Any) -> Any:
    changed = {name: new.excluded[name] for name in ("etag", "sha256", "checked_at")}
    return new.on_conflict_do_update(index_elements=[*_KEY], set_=changed)


def _from_arrays() -> Any:
    arrays = (bindparam(name, type_=ARRAY(Text)) for name in _NAMES)
    rows = func.unnest(*arrays).table_valued(*_NAMES, name="noted").render_derived()
    selected = select(*(rows.c[name] for name in _NAMES), utc_now())
    return postgresql.insert(file_digests).from_select([*_NAMES, "checked_at"], selected)


_note_each: Final = _upsert(
    sqlite.insert(file_digests).values(
        {**{name: bindparam(name) for name in _NAMES}, "checked_at": utc_now()}
    )
)
# a statement for each row would take PostgreSQL and its driver four times as long
_note_all: Final = _upsert(_from_arrays())
_of_user: Final = select(_DIGESTS.path, _DIGESTS.etag, _DIGESTS.sha256).where(
    _DIGESTS.user_id == bindparam("user_id")
)
_found: Final = {
    True: _of_user.where(_DIGESTS.path.in_(bindparam("paths", expanding=True))),
    # a thousand parameters would take PostgreSQL forty times as long as one array
    False: _of_user.where(_DIGESTS.path == any_(bindparam("paths", type_=ARRAY(Text)))),
}
_is_one: Final = and_(
    _DIGESTS.user_id == bindparam("of_user"),
    _DIGESTS.path == bindparam("of_path"),
    _DIGESTS.etag == bindparam("of_etag"),
)
_forget: Final = delete(file_digests).where(_is_one)
_keep: Final = update(file_digests).where(_is_one).values(checked_at=utc_now())


async def note_digests(tx: AsyncConnection, noted: Sequence[Noted]) -> None:
    """Note digests, of different paths; each takes the place of the one at its path."""
    rows = [
        {"user_id": it.user_id, "path": it.path, "etag": it.etag, "sha256": it.sha256}
        for it in _in_order(noted)
    ]
    if tx.dialect.name == "sqlite":
        await tx.execute(_note_each, rows)
    else:
        await tx.execute(_note_all, {name: [row[name] for row in rows] for name in _NAMES})


async def find_digests(
    connection: AsyncConnection, user_id: str, versions: Mapping[str, str]
) -> dict[str, str]:
    """The digests that are known of a user's files, by path; `versions`: the ETag of each."""
    # PostgreSQL cannot hold NUL, which a key in S3 may
    paths = [path for path in versions if "\0" not in path]
    if not paths:
        return {}
    is_sqlite = connection.dialect.name == "sqlite"
    values = {"user_id": user_id, "paths": padded(paths) if is_sqlite else paths}
    rows = await connection.execute(_found[is_sqlite], values)
    return {path: sha256 for path, etag, sha256 in rows if versions[path] == etag}


# -- sweeps --------------------------------------------------------------------------------------
async def find_oldest(database: Database, age: float, limit: int) -> list[Noted]:
    """Some digests whose files were not looked at for `age` seconds."""
    old = select(*_KEY, _DIGESTS.etag, _DIGESTS.sha256).where(_DIGESTS.checked_at < utc_now(-age))
    async with database.reading() as connection:
        rows = await connection.execute(old.order_by(_DIGESTS.checked_at).limit(limit))
        return [Noted(*row) for row in rows]


async def note_checked(database: Database, kept: Sequence[Noted]) -> None:
    """The files of these digests are there still."""
    await _on_each(database, _keep, kept)


async def forget_digests(database: Database, gone: Sequence[Noted]) -> None:
    """Remove digests, unless others have been noted at their paths."""
    await _on_each(database, _forget, gone)


async def _on_each(database: Database, statement: Any, noted: Sequence[Noted]) -> None:
    rows = [
        {"of_user": it.user_id, "of_path": it.path, "of_etag": it.etag} for it in _in_order(noted)
    ]
    if rows:
        async with database.statement() as tx:
            await tx.execute(statement, rows)


def _in_order(noted: Sequence[Noted]) -> list[Noted]:
    """In the one order of all writers, so that no two of them deadlock."""
    return sorted(noted, key=lambda it: (it.user_id, it.path))
