"""The statements of a search: a page of it, its count, and whether a part of an index is short.

A page is the union of *branches*. A branch is one range of one index that has the wanted order, of
which no more is read than the page needs: one for each facet, or the one of a label, or the one of
the order itself. Behind the branches of jobs with a key come those of jobs without it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import MAXYEAR, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    FromClause,
    Integer,
    Select,
    String,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
)

from common.database.engine import padded
from common.database.facet import job_facet
from common.database.tables import job_labels, jobs
from gateway.jobs.columns import SHORT_COLUMNS
from gateway.jobs.finding import names
from gateway.jobs.finding.names import is_exact
from gateway.jobs.finding.search import DATES, Place, Search
from gateway.jobs.labels import Label, has_label

FEW: Final = 1_000
"""Jobs that are read and sorted rather than looked for in the order of the page."""

_MOST_BRANCHES: Final = 100
_SKEW: Final = timedelta(days=1)
"""No job has finished so long before it was created, whichever clocks wrote the dates."""

Conditions = list[ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Plan:
    """A search of one user, with what was looked up beforehand: the facets that match (None:
    any), a label that few jobs have, the ids of the few jobs with such a name (None: many), and
    whether few finished then."""

    search: Search
    user_id: str
    is_sqlite: bool
    facets: Sequence[str] | None = None
    rare_label: Label | None = None
    named: Sequence[int] | None = None
    few_finished: bool = False


@dataclass(frozen=True, slots=True)
class _Branch:
    source: FromClause
    key: ColumnElement[Any]
    id: ColumnElement[int]
    conditions: Conditions


def page(plan: Plan, *, after: Place | None, offset: int, limit: int) -> Select[Any]:
    """The jobs behind a place, in order, without `offset` of them: `limit` or some more."""
    found = _found(plan, after, offset, _rounded(limit))
    in_order = _in_order(plan.search, found.c)
    if plan.is_sqlite:
        rows = select(*SHORT_COLUMNS).join_from(found, jobs, jobs.c.id == found.c.id)
        return rows.order_by(*in_order)
    # one look-up per id: PostgreSQL cannot know how few they are
    job = select(*SHORT_COLUMNS).where(jobs.c.id == found.c.id).limit(1).lateral("job")
    return select(*job.c).select_from(found.join(job, true())).order_by(*in_order)


def edge(plan: Plan, *, after: Place | None, offset: int, limit: int) -> Select[Any]:
    """The places (key, id) of the last job of such a page and of the one behind it."""
    found = _found(plan, after, offset + limit - 1, 2)
    return select(found.c.key, found.c.id).order_by(*_in_order(plan.search, found.c))


def count(plan: Plan) -> Select[Any]:
    """How many jobs match."""
    conditions = _conditions(plan, counts=True)
    return select(func.count()).select_from(jobs).where(*conditions)


def few_named(plan: Plan) -> Select[Any]:
    """Ids of jobs with such a name, one more than `FEW` at most: read from the index alone."""
    pattern, is_sqlite = plan.search.name or "", plan.is_sqlite
    own = (jobs.c.user_id == plan.user_id, *names.in_range(pattern, is_sqlite=is_sqlite))
    found = select(jobs.c.id).where(*own, names.matches(pattern, is_sqlite=is_sqlite))
    return found.limit(literal_column(str(FEW + 1)))


def beyond_few_finished(plan: Plan) -> Select[Any]:
    """One row if more than `FEW` jobs finished then; the one below is alike."""
    finished = _between(jobs.c.date_finished, plan.search.finished)
    return _beyond_few(select(jobs.c.id).where(jobs.c.user_id == plan.user_id, *finished))


def beyond_few_labelled(plan: Plan, label: Label) -> Select[Any]:
    own = (job_labels.c.user_id == plan.user_id, *_label_is(label))
    return _beyond_few(select(job_labels.c.job_id).where(*own))


def _beyond_few(rows: Select[Any]) -> Select[Any]:
    return rows.offset(literal_column(str(FEW))).limit(literal_column("1"))


# -- parts ----------------------------------------------------------------------------------------


def _found(plan: Plan, after: Place | None, offset: int, limit: int) -> Any:
    """Ids and keys of the page's jobs, and whether they lack the key."""
    each = _rounded(offset + limit)
    branches = [
        _ordered(plan.search, segment, number).limit(literal_column(str(each))).subquery()
        for branch in _branches(plan)
        for number, segment in _segments(plan, branch, after)
    ]
    selects = [select(branch.c.no_key, branch.c.key, branch.c.id) for branch in branches]
    merged = (union_all(*selects) if len(selects) > 1 else selects[0]).subquery("merged")
    found = select(merged).order_by(*_in_order(plan.search, merged.c))
    found = found.limit(literal_column(str(limit)))
    return (found.offset(offset) if offset else found).subquery("found")


def _rounded(limit: int) -> int:
    """The next power of two: a number that PostgreSQL knows when it plans, but few statements."""
    return 1 << (limit - 1).bit_length()


def _in_order(search: Search, columns: Any) -> tuple[Any, ...]:
    if search.descending:
        return (columns.no_key, columns.key.desc(), columns.id.desc())
    return (columns.no_key, columns.key, columns.id)


def _ordered(search: Search, branch: _Branch, no_key: int) -> Select[Any]:
    """A branch in the order of its index; with a key, the place of NULL does not matter."""
    columns: tuple[Any, ...] = (
        literal_column(str(no_key)).label("no_key"),
        branch.key.label("key"),
        branch.id.label("id"),
    )
    key: Any = branch.key.desc() if search.descending else branch.key.asc()
    if search.sort in DATES:
        key = key.nulls_last() if search.descending else key.nulls_first()
    by_id = branch.id.desc() if search.descending else branch.id.asc()
    order = (by_id,) if no_key else (key, by_id)
    return select(*columns).select_from(branch.source).where(*branch.conditions).order_by(*order)


def _segments(plan: Plan, branch: _Branch, after: Place | None) -> Iterator[tuple[int, _Branch]]:
    """The jobs of a branch with a key, then those without, of both only what is behind a place."""
    search = plan.search
    has_keyless = search.sort != "status" and not _bounds(search)
    if after is None or after.key is not None:
        some = [] if search.sort == "status" else [branch.key.is_not(None)]
        here = [*some, *_within(search, branch, after)]
        yield 0, replace(branch, conditions=[*branch.conditions, *here])
    if has_keyless:
        here = [branch.key.is_(None)]
        if after is not None and after.key is None:
            here.append(branch.id < after.id if search.descending else branch.id > after.id)
        yield 1, replace(branch, conditions=[*branch.conditions, *here])


def _bounds(search: Search) -> bool:
    """Whether dates of creation bound the part of the index that is read."""
    return search.sort == "date_created" and search.created != (None, None)


def _within(search: Search, branch: _Branch, after: Place | None) -> Conditions:
    """The part of an index that is read. Behind a place, its beginning is the place alone, since
    SQLite may begin at another bound."""
    start, end = search.created if search.sort == "date_created" else (None, None)
    until = search.finished[1] if search.sort == "date_created" else None
    if until is not None and until.year < MAXYEAR:
        end = min(end or until + _SKEW, until + _SKEW)
    if after is None or after.key is None:
        return _between(branch.key, (start, end))
    kind = DateTime() if search.sort in DATES else String()
    place = tuple_(literal(after.key, kind), literal(after.id, Integer))
    here = tuple_(branch.key, branch.id)
    if search.descending:
        return [here < place, *_between(branch.key, (start, None))]
    return [here > place, *_between(branch.key, (None, end))]


def _branches(plan: Plan) -> list[_Branch]:
    search = plan.search
    if search.sort != "date_created":
        key: Any = jobs.c[search.sort]
        if search.sort == "job_name":
            key = names.by_code_points(is_sqlite=plan.is_sqlite)
        return [_Branch(jobs, key, jobs.c.id, _conditions(plan))]
    by = (jobs.c.date_created, jobs.c.id)
    rest = replace(plan, search=replace(search, created=(None, None)))
    is_short = plan.named is not None or plan.few_finished or search.batch_id is not None
    if is_short or is_exact(search.name):
        return [_Branch(jobs, *by, _conditions(rest))]
    if search.labels:
        return [_of_label(rest)]
    if plan.facets is not None and len(plan.facets) <= _MOST_BRANCHES:
        others = _conditions(replace(rest, facets=None))
        return [_Branch(jobs, *by, [*others, _is_facet(facet)]) for facet in plan.facets]
    return [_Branch(jobs, *by, _conditions(rest))]


def _is_facet(facet: str) -> ColumnElement[bool]:
    """A facet that PostgreSQL does not know when it plans. For one of many jobs it would follow the
    index on dates, and read everything where these jobs are the oldest."""
    return job_facet() == select(literal(facet, String)).scalar_subquery()


def _of_label(plan: Plan) -> _Branch:
    """The jobs of a label, in the order of the index on labels; of several, one with a value."""
    search = plan.search
    driving = plan.rare_label or max(search.labels, key=lambda label: label[1] is not None)
    others = tuple(label for label in search.labels if label != driving)
    rest = replace(plan, search=replace(search, labels=others))
    return _Branch(
        job_labels.join(jobs, jobs.c.id == job_labels.c.job_id),
        job_labels.c.date_created,
        job_labels.c.job_id,
        [
            job_labels.c.user_id == plan.user_id,
            *_label_is(driving),
            *_conditions(rest, looks_up=True),
        ],
    )


def _conditions(plan: Plan, *, looks_up: bool = False, counts: bool = False) -> Conditions:
    """What a job has to meet. `looks_up`: its labels are looked up, one job after the other;
    `counts`: all that match are read, by whichever index."""
    search, is_sqlite = plan.search, plan.is_sqlite
    by_batch = search.batch_id is not None and not counts
    has_index = is_sqlite and (by_batch or plan.named is not None)
    found: Conditions = [
        _of_no_index(jobs.c.user_id, has_index) == plan.user_id,
        jobs.c.deleted_at.is_(None),
    ]
    if plan.facets is not None:
        found.append(job_facet().in_(padded(plan.facets)))
    if plan.named is not None:
        found.append(jobs.c.id.in_(padded(plan.named)))
    elif search.name is not None:
        found.append(names.matches(search.name, is_sqlite=is_sqlite))
        if counts and not is_exact(search.name):
            found += names.in_range(search.name, is_sqlite=is_sqlite)
    if search.batch_id is not None:
        found.append(jobs.c.batch_id == search.batch_id)
    found += [
        _has(label) if looks_up else has_label(plan.user_id, label) for label in search.labels
    ]
    found += _between(jobs.c.date_created, search.created)
    walks = search.sort != "date_finished" and not plan.few_finished and not counts
    found += _between(_of_no_index(jobs.c.date_finished, is_sqlite and walks), search.finished)
    return found


def _of_no_index(column: Column[Any], applies: bool) -> ColumnElement[Any]:
    """The column so that SQLite, which has no statistics, does not choose an index for it."""
    return literal_column(f"+jobs.{column.name}", column.type) if applies else column


def _has(label: Label) -> ColumnElement[bool]:
    """Whether the job at hand has a label: a look-up, which is no join for PostgreSQL to plan."""
    other = job_labels.alias()
    key, value = label
    own = [other.c.job_id == jobs.c.id, other.c.key == key]
    own += [] if value is None else [other.c.value == value]
    return select(other.c.job_id).where(*own).limit(1).scalar_subquery().is_not(None)


def _label_is(label: Label) -> Conditions:
    key, value = label
    own = [job_labels.c.key == key]
    return own if value is None else [*own, job_labels.c.value == value]


def _between(
    column: ColumnElement[Any], dates: tuple[datetime | None, datetime | None]
) -> Conditions:
    start, end = dates
    found = [] if start is None else [column >= start]
    return found if end is None else [*found, column < end]
