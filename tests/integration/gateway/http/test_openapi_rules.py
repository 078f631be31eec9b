"""What linters and generators of clients ask of `/openapi.json`, without either of them."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator

from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api

SLASH_AT_THE_END = {"/", "/files/{f_type}/{base_path}/"}
"""Paths that are so on the wire."""

KINDS = {"string_type", "missing", "enum", "int_parsing", "bool_parsing", "value_error"}


@pytest.fixture
def document(start_gateway: StartGateway) -> Any:
    return Api(start_gateway(PROD="false")).get("/openapi.json").json()


@pytest.fixture
def operations(document: Any) -> dict[str, Any]:
    """By method and path."""
    return {
        f"{method} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def nodes(node: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All objects of the document, and where they are."""
    if isinstance(node, dict):
        yield where, node
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(inner, dict | list):
            yield from nodes(inner, f"{where}/{key}")


def schema_of(document: Any, schema: Any) -> Any:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def test_operations_have_names_of_their_own_that_are_identifiers(operations: Any) -> None:
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch("[a-z]+(_[a-z]+)*", name)] == []


def test_all_tags_and_no_others_are_declared_and_described(document: Any, operations: Any) -> None:
    used = {tag for operation in operations.values() for tag in operation["tags"]}
    assert {tag["name"] for tag in document["tags"]} == used
    assert all(tag["description"] for tag in document["tags"])


def test_the_document_says_where_by_whom_and_under_which_licence(document: Any) -> None:
    assert document["servers"] == [{"url": "/", "description": "This service"}]
    assert document["info"]["contact"]["name"]
    assert document["info"]["license"]["identifier"] == "MIT"


def test_paths_end_in_a_slash_only_where_the_wire_has_it(document: Any) -> None:
    assert {path for path in document["paths"] if path.endswith("/")} == SLASH_AT_THE_END


def test_null_is_only_an_alternative(document: Any) -> None:
    for where, node in nodes(document):
        if node.get("type") == "null":
            assert re.search("/anyOf/[0-9]+$", where), where
        assert None not in (node.get("enum") or ()), where


def test_every_required_key_is_declared_beside_it(document: Any) -> None:
    for where, node in nodes(document):
        if isinstance(node.get("required"), list):
            assert set(node["required"]) <= node["properties"].keys(), where


def test_bodies_that_differ_by_content_type_have_names_of_their_own(operations: Any) -> None:
    """openapi-python-client also needs an optional parameter there, to import what it uses."""
    several = 0
    for name, operation in operations.items():
        contents = operation.get("requestBody", {}).get("content", {})
        if len(contents) > 1:
            several += 1
            schemas = [content["schema"].get("$ref") for content in contents.values()]
            assert None not in schemas, name
            assert len(set(schemas)) == len(schemas), name
            assert any(not item.get("required") for item in operation["parameters"]), name
    assert several


def test_keys_of_answers_are_required_unless_they_are_optional(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert set(schemas["Job"]["required"]) == schemas["Job"]["properties"].keys()
    assert set(schemas["File"]["required"]) == {"path", "type", "size"}


def test_examples_fit_their_schemas(document: Any) -> None:
    found = 0
    for where, node in nodes(document["paths"]):
        if "example" in node and "schema" in node:
            found += 1
            schema = {**node["schema"], "components": document["components"]}
            errors = [
                error.message for error in OAS31Validator(schema).iter_errors(node["example"])
            ]
            assert errors == [], where
    assert found > 100


def test_the_example_of_a_422_is_a_fault_of_this_very_request(
    document: Any, operations: Any
) -> None:
    examined = 0
    for name, operation in operations.items():
        if "422" not in operation["responses"]:
            continue
        content = operation["responses"]["422"]["content"]["application/json"]
        for fault in content["example"]["detail"]:
            examined += 1
            place, *keys = fault["loc"]
            assert fault["type"] in KINDS, name
            if place == "body" and not keys:
                assert "requestBody" in operation, name
            elif place == "body":
                for body in operation["requestBody"]["content"].values():
                    assert keys[0] in schema_of(document, body["schema"])["properties"], name
            elif fault["loc"] == ["header", "x-api-key"]:
                assert operation["security"] == [{"internal": []}], name
            else:
                parameters = {
                    (item["in"], item["name"].lower() if item["in"] == "header" else item["name"])
                    for item in operation["parameters"]
                }
                assert (place, keys[0]) in parameters, name
    assert examined > 10
