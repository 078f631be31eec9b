"""A job's facet: what users filter by that has few values, as one text, so that one index serves.

It is the first letter of the environment (`-` without one), the status, a blank, and the JSON text
of the application. A user's jobs have few facets, however many the jobs are; the index on it holds
the jobs of each in order of their date. The migrations create that index from the same SQL.
"""

from typing import Any, Final

from sqlalchemy import Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

NO_ENVIRONMENT: Final = "-"
LONGEST_APPLICATION: Final = 600
"""Characters: an entry of an index has at most 2,700 bytes. None that is configured is as long."""

_FACET: Final = (
    "(CASE environment WHEN 'cloud' THEN 'c' WHEN 'local' THEN 'l' ELSE '-' END"
    " || status || ' ' || {application})"
)
FACET_SQL: Final = {
    "postgresql": _FACET.format(application="left(coalesce(application #>> '{}', ''), 600)"),
    "sqlite": _FACET.format(application="substr(coalesce(application, ''), 1, 600)"),
}
"""By dialect; a query must spell it as the index does."""


class job_facet(FunctionElement[Any]):  # noqa: N801 - reads like the SQL function that it is
    """The facet of a row of `jobs`, the only table with such columns in its query."""

    type = Text()
    inherit_cache = True
    name = "job_facet"


@compiles(job_facet)
def _facet(_: job_facet, compiler: Any, **kw: Any) -> str:  # noqa: ARG001
    return FACET_SQL[compiler.dialect.name]
