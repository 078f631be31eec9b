"""What a user looks for among the own jobs, in which order, and places in that order."""

from dataclasses import astuple, dataclass, fields, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from common.jobs.answer import Job, date_of
from gateway.jobs.labels import Label

SORTS: Final = ("date_created", "date_finished", "job_name", "status")
DATES: Final = frozenset({"date_created", "date_finished"})

NO_ENVIRONMENT: Final = "null"


class Place(NamedTuple):
    """A job's place in an order: by its key (None: behind all others), then by its id."""

    key: datetime | str | None
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """All filters have to match; None and () match everything. Dates are UTC, from the first,
    inclusive, until the second, exclusive. In `name`, `*` stands for anything."""

    statuses: tuple[str, ...] = ()
    application: str | None = None
    version: str | None = None
    entrypoint: str | None = None
    environment: str | None = None
    name: str | None = None
    labels: tuple[Label, ...] = ()
    batch_id: int | None = None
    created: tuple[datetime | None, datetime | None] = (None, None)
    finished: tuple[datetime | None, datetime | None] = (None, None)
    sort: str = "date_created"
    descending: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether this is every job, newest first."""
        return self == _EVERYTHING

    @property
    def has_filters(self) -> bool:
        return replace(self, sort=_EVERYTHING.sort, descending=True) != _EVERYTHING

    @property
    def by_facet(self) -> bool:
        """Whether a filter is about what `common.database.facet` holds."""
        named = (self.application, self.version, self.entrypoint, self.environment)
        return bool(self.statuses) or named != (None, None, None, None)

    def as_json(self) -> list[Any]:
        """The same for searches that are the same, whatever the order of their parameters."""
        return [field.name for field in fields(self)] + list(astuple(self))

    def place(self, job: Job) -> Place:
        """The place of a job, as it is answered, in this order."""
        key = job[self.sort]
        return Place(date_of(key) if self.sort in DATES else key, job["id"])

    def is_behind(self, one: Place, other: Place) -> bool:
        """Whether one place comes after another one in this order."""
        if (one.key is None) != (other.key is None):
            return one.key is None
        first, second = (
            tuple(place) if place.key is not None else (place.id,) for place in (one, other)
        )
        return first < second if self.descending else first > second


_EVERYTHING: Final = Search()
