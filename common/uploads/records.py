"""Resumable uploads in the database.

One writes an upload only with its lease, which is renewed while bytes move: each statement below
that changes an upload names the lease's owner, and changes nothing once another has taken over.

An upload is received until all its bytes are there; with the last of them its digest is noted, and
from then on the file can be placed by any process. Placed, it is known until it expires. An expired
one is swept: nothing is staged any more, and it is remembered for a while.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Float,
    and_,
    bindparam,
    delete,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.tables import UNPLACED, uploads
from common.storage.paths import UserPath
from common.storage.resumable import Staged

LEASE: Final = 5.0
"""Seconds after its last renewal at which others may write."""

RENEW_EVERY: Final = 1.0

_SWEEP_LEASE: Final = 60.0

_NAMES_AT_ONCE: Final = 1_000
"""Names in one statement: databases take some ten thousand parameters, and a killed gateway may
leave an archive's files behind."""

RELEASED: Final[Mapping[str, Any]] = {"owner": None, "leased_until": None}
"""What gives the lease back."""

_UPLOADS: Final = uploads.c
_is_free = or_(_UPLOADS.leased_until.is_(None), _UPLOADS.leased_until <= utc_now())
_is_alive = and_(_UPLOADS.swept_at.is_(None), _UPLOADS.expires_at > utc_now())
_COLUMNS: Final = (
    *(_UPLOADS.id, _UPLOADS.user_id, _UPLOADS.path, _UPLOADS.staged_name, _UPLOADS.sent_metadata),
    *(_UPLOADS.length, _UPLOADS.received, _UPLOADS.digest_state, _UPLOADS.expected_sha256),
    *(_UPLOADS.sha256, _UPLOADS.expires_at, _UPLOADS.finished_at, _UPLOADS.etag),
    _is_alive.label("is_alive"),
)


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload as it was read; sizes in bytes, digests in hexadecimal."""

    id: str
    staged: Staged
    sent_metadata: str
    received: int
    digest_state: bytes
    expected_sha256: str | None
    sha256: str | None
    expires_at: datetime
    is_finished: bool
    etag: str | None
    is_alive: bool

    @property
    def user_id(self) -> str:
        return self.staged.path.user

    @property
    def length(self) -> int:
        return self.staged.length

    @property
    def is_whole(self) -> bool:
        """Whether all has arrived, and its digest is known."""
        return self.sha256 is not None


def _from_row(row: Any) -> Upload:
    return Upload(
        id=row.id,
        staged=Staged(UserPath.parse(row.user_id, row.path), row.length, row.staged_name),
        sent_metadata=row.sent_metadata,
        received=row.received,
        digest_state=bytes(row.digest_state),
        expected_sha256=row.expected_sha256,
        sha256=row.sha256,
        expires_at=row.expires_at,
        is_finished=row.finished_at is not None,
        etag=row.etag,
        is_alive=bool(row.is_alive),
    )


async def insert_upload(
    database: Database,
    upload_id: str,
    staged: Staged,
    *,
    sent_metadata: str,
    expected_sha256: str | None,
    owner: str,
    retention: float,
) -> Upload:
    """A new upload, whose lease the owner holds; it expires after `retention` without a byte."""
    statement = insert(uploads).values(
        id=upload_id,
        user_id=staged.path.user,
        path=str(staged.path),
        staged_name=staged.name,
        sent_metadata=sent_metadata,
        length=staged.length,
        digest_state=b"",
        expected_sha256=expected_sha256,
        owner=owner,
        leased_until=utc_now(LEASE),
        created_at=utc_now(),
        expires_at=utc_now(retention),
    )
    async with database.statement() as tx:
        return _from_row((await tx.execute(statement.returning(*_COLUMNS))).one())


async def find_upload(database: Database, user_id: str, upload_id: str) -> Upload | None:
    """A user's upload; None if there is none."""
    statement = select(*_COLUMNS).where(_UPLOADS.id == upload_id, _UPLOADS.user_id == user_id)
    async with database.reading() as connection:
        row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _from_row(row)


_take_free: Final = (
    update(uploads)
    .where(
        _UPLOADS.id == bindparam("of_id"), _UPLOADS.user_id == bindparam("of_user"),
        _is_alive, _is_free,
    )
    .values(owner=bindparam("new_owner"), leased_until=utc_now(LEASE))
    .returning(*_COLUMNS)
)  # fmt: skip


async def take_upload(
    database: Database, user_id: str, upload_id: str, owner: str
) -> Upload | None:
    """A user's upload with its lease; None if there is none, it is expired, or another writes."""
    values = {"of_id": upload_id, "of_user": user_id, "new_owner": owner}
    async with database.statement() as tx:
        row = (await tx.execute(_take_free, values)).one_or_none()
    return None if row is None else _from_row(row)


def _owned(upload_id: str, owner: str) -> ColumnElement[bool]:
    return and_(_UPLOADS.id == upload_id, _UPLOADS.owner == owner)


@cache
def _renewal(names: frozenset[str], *, expires: bool) -> Any:
    """Building this takes a good part of what confirming a small portion does."""
    values: dict[str, Any] = {"leased_until": utc_now(LEASE)}
    if expires:
        values["expires_at"] = utc_now(bindparam("retention", type_=Float))
    values |= {name: bindparam(name) for name in names}
    owned = and_(_UPLOADS.id == bindparam("of_id"), _UPLOADS.owner == bindparam("of_owner"))
    return update(uploads).where(owned).values(values).returning(_UPLOADS.expires_at)


async def renew(
    database: Database,
    upload_id: str,
    owner: str,
    values: Mapping[str, Any],
    *,
    retention: float | None = None,
) -> datetime | None:
    """Renew the lease and note `values`; when the upload expires, or None if the lease is lost.

    `retention`: seconds from now at which it expires, if that changes.
    """
    statement = _renewal(frozenset(values), expires=retention is not None)
    parameters = {"of_id": upload_id, "of_owner": owner, **values}
    if retention is not None:
        parameters["retention"] = retention
    async with database.statement() as tx:
        row = (await tx.execute(statement, parameters)).one_or_none()
    return None if row is None else row.expires_at


async def release(database: Database, upload_id: str, owner: str) -> None:
    """Let others write; does nothing if the lease is lost."""
    await renew(database, upload_id, owner, RELEASED)


async def note_placed(
    tx: AsyncConnection, upload_id: str, owner: str, etag: str | None
) -> Upload | None:
    """The file is at its place; the lease ends. None if it was lost."""
    values = {"finished_at": utc_now(), "etag": etag, **RELEASED}
    statement = update(uploads).where(_owned(upload_id, owner)).values(values)
    row = (await tx.execute(statement.returning(*_COLUMNS))).one_or_none()
    return None if row is None else _from_row(row)


async def forget(database: Database, upload_id: str, owner: str) -> None:
    """Remove the upload, of which nothing is staged any more."""
    async with database.statement() as tx:
        await tx.execute(delete(uploads).where(_owned(upload_id, owner)))


# -- sweeps --------------------------------------------------------------------------------------
async def take_expired(database: Database, owner: str, limit: int) -> list[Upload]:
    """Some uploads that have expired, each with its lease."""
    return await _take(database, owner, limit, _UPLOADS.swept_at.is_(None), ~_is_alive)


async def take_whole(database: Database, owner: str, limit: int) -> list[Upload]:
    """Some whole uploads whose files nobody is placing, each with its lease."""
    condition = text(f"sha256 IS NOT NULL AND {UNPLACED}")
    return await _take(database, owner, limit, condition, _is_alive)


async def _take(database: Database, owner: str, limit: int, *conditions: Any) -> list[Upload]:
    chosen = (
        select(_UPLOADS.id)
        .where(*conditions, _is_free)
        .order_by(_UPLOADS.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(uploads)
        .where(_UPLOADS.id.in_(chosen))
        .values(owner=owner, leased_until=utc_now(_SWEEP_LEASE))
    )
    async with database.statement() as tx:
        return [_from_row(row) for row in await tx.execute(statement.returning(*_COLUMNS))]


async def note_swept(database: Database, upload_id: str, owner: str) -> None:
    """Nothing of the expired upload is staged any more."""
    values = {"swept_at": utc_now(), **RELEASED}
    async with database.statement() as tx:
        await tx.execute(update(uploads).where(_owned(upload_id, owner)).values(values))


async def prune(database: Database, age: float, limit: int) -> int:
    """Remove uploads that were swept more than `age` seconds ago; returns how many."""
    old = select(_UPLOADS.id).where(_UPLOADS.swept_at < utc_now(-age)).limit(limit)
    async with database.statement() as tx:
        return (await tx.execute(delete(uploads).where(_UPLOADS.id.in_(old)))).rowcount


async def known_names(database: Database, names: Sequence[str]) -> set[str]:
    """Those of the storage's names that belong to uploads which are not swept."""
    known: set[str] = set()
    async with database.reading() as connection:
        for start in range(0, len(names), _NAMES_AT_ONCE):
            some = _UPLOADS.staged_name.in_(names[start : start + _NAMES_AT_ONCE])
            found = select(_UPLOADS.staged_name).where(some, text(UNPLACED))
            known.update((await connection.execute(found)).scalars())
    return known
