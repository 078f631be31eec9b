"""Examples of faults come from the schemas."""

from typing import Any

import pytest
from marshmallow import Schema

from gateway.http.example_faults import example_faults
from gateway.http.fields import Choice, Flag, RequestSchema, Text, TreePath, Whole


class Required(RequestSchema):
    name = Text(required=True)
    number = Whole(load_default=0)


class Optional(RequestSchema):
    number = Whole(load_default=0)
    reason = Text(load_default="")


class OptionalText(RequestSchema):
    reason = Text(load_default="")


class Place(RequestSchema):
    f_type = Choice(["data", "config"], required=True)
    path = TreePath(required=True)


class Query(RequestSchema):
    after = Text(load_default="")
    recursive = Flag(load_default=False)


@pytest.mark.parametrize(
    ("schemas", "expected"),
    [
        ([("json", Required)], [("body", "name", "missing")]),
        ([("json", Optional)], [("body", "number", "int_parsing")]),
        ([("json", OptionalText)], [("body", "reason", "string_type")]),
        ([("match_info", Place)], [("path", "f_type", "enum")]),
        ([("querystring", Query)], [("query", "recursive", "bool_parsing")]),
        ([("querystring", OptionalText)], []),
        ([("match_info", Place), ("json", Required)], [("body", "name", "missing")]),
        ([], []),
    ],
)
def test_an_example_is_what_the_schemas_refuse_first(
    schemas: list[tuple[str, type[Schema]]], expected: Any
) -> None:
    items = [{"location": location, "schema": schema()} for location, schema in schemas]
    faults = example_faults(items)
    assert [(*fault["loc"], fault["type"]) for fault in faults] == expected
