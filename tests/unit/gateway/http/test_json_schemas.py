"""Schemas in the forms that generators of clients understand."""

from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator

from gateway.http.json_schemas import with_nullable_enums, with_other_name

CHOICE = {"type": ["string", "null"], "enum": ["cloud", None], "default": None}


@pytest.mark.parametrize(("value", "valid"), [("cloud", True), (None, True), ("moon", False)])
def test_a_nullable_enumeration_becomes_one_of_two(value: Any, valid: bool) -> None:
    document = with_nullable_enums({"schemas": [{"properties": {"where": CHOICE}}]})
    schema = document["schemas"][0]["properties"]["where"]
    assert schema == {
        "default": None,
        "anyOf": [{"type": "string", "enum": ["cloud"]}, {"type": "null"}],
    }
    assert OAS31Validator(schema).is_valid(value) == valid


@pytest.mark.parametrize(
    ("keys", "valid"),
    [("up", True), ("ep", True), ("uep", True), ("p", False), ("u", False), ("e", False)],
)
def test_a_key_may_have_another_name(keys: str, valid: bool) -> None:
    properties = {"u": {"type": "string"}, "p": {"type": "string"}}
    credentials = {"type": "object", "properties": properties, "required": ["p", "u"]}
    schema = with_other_name(credentials, "u", "e")
    assert OAS31Validator(schema).is_valid(dict.fromkeys(keys, "x")) == valid
