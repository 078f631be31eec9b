"""Which facets of a user's jobs match a search; `common.database.facet` says what a facet is."""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import String, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.facet import NO_ENVIRONMENT as NO_LETTER
from common.database.facet import job_facet
from common.database.tables import jobs
from gateway.jobs.finding.search import NO_ENVIRONMENT, Search

_user_id = bindparam("user_id", type_=String)


def _next(*conditions: Any) -> Any:
    found = select(job_facet()).select_from(jobs).where(jobs.c.user_id == _user_id, *conditions)
    return found.order_by(job_facet()).limit(1)


_known = select(_next().scalar_subquery().label("facet")).cte("known", recursive=True)
_known = _known.union_all(
    select(_next(job_facet() > _known.c.facet).scalar_subquery()).where(_known.c.facet.is_not(None))
)
_facets: Final = select(_known.c.facet).where(_known.c.facet.is_not(None))
"""Each step looks up the next one in the index: the cost is that of the facets, not of the jobs."""


async def matching_facets(
    connection: AsyncConnection, user_id: str, search: Search
) -> Sequence[str]:
    """The facets of the user's jobs that match the search."""
    found = await connection.scalars(_facets, {"user_id": user_id})
    return [facet for facet in found if _matches(facet, search)]


def _matches(facet: str, search: Search) -> bool:
    status, _, text = facet[1:].partition(" ")
    if search.statuses and status not in search.statuses:
        return False
    if search.environment is not None:
        none = search.environment == NO_ENVIRONMENT
        if facet[0] != (NO_LETTER if none else search.environment[0]):
            return False
    wanted = {
        "application": search.application,
        "version": search.version,
        "entrypoint": search.entrypoint,
    }
    if not any(value is not None for value in wanted.values()):
        return True
    try:
        application = orjson.loads(text)
    except orjson.JSONDecodeError:  # an adopted row
        return False
    if not isinstance(application, dict):
        return False
    return all(value in {None, application.get(key)} for key, value in wanted.items())
