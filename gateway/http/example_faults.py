"""An operation's example of a 422, found by its own schemas, so that it is one that can happen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from marshmallow import Schema, ValidationError

from gateway.http.errors import Fault
from gateway.http.validation import LOCATIONS, flatten

_IN_ORDER: Final = ("json", "form", "headers", "querystring", "match_info")
"""Where a fault is looked for first."""

_IN_URL: Final = ("querystring", "match_info")
"""Where values are texts and none is missing: a path that lacks a part is another route's."""


def example_faults(schemas: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The faults of a request that lacks what is required, else of one with a wrong value.

    `schemas` are a handler's, as its decorators leave them. Empty if no request can be faulty.
    """
    for location in _IN_ORDER:
        for item in schemas:
            if item["location"] == location:
                for faults in _found(item["schema"], location):
                    return [asdict(fault) for fault in faults]
    return []


def _found(schema: Schema, location: str) -> Iterator[list[Fault]]:
    in_url = location in _IN_URL
    if not in_url:
        yield from _faults(schema, location, {})
    for name, field in schema.load_fields.items():
        key = field.data_key or name
        for wrong in [".."] if in_url else ["..", {}]:
            for faults in _faults(schema, location, {key: wrong}):
                yield from [[fault] for fault in faults if fault.loc[1:2] == [key]]


def _faults(schema: Schema, location: str, given: Mapping[str, Any]) -> Iterator[list[Fault]]:
    try:
        schema.load(given)
    except ValidationError as error:
        yield list(flatten(error.messages, [LOCATIONS[location]]))
