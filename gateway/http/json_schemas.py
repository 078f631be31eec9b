"""JSON Schema in the forms that generators of clients understand.

marshmallow's and JSON Schema's own ways leave them with three classes for one nullable enumeration,
or with none at all for `anyOf` beside `properties`.
"""

from typing import Any


def with_nullable_enums(node: Any) -> Any:
    """The document with each nullable enumeration as an enumeration or null."""
    if isinstance(node, list):
        return [with_nullable_enums(item) for item in node]
    if not isinstance(node, dict):
        return node
    changed = {key: with_nullable_enums(value) for key, value in node.items()}
    choices, types = changed.get("enum"), changed.get("type")
    if isinstance(choices, list) and None in choices and isinstance(types, list):
        del changed["enum"], changed["type"]
        (kind,) = (name for name in types if name != "null")
        texts = [choice for choice in choices if choice is not None]
        changed["anyOf"] = [{"type": kind, "enum": texts}, {"type": "null"}]
    return changed


def with_other_name(schema: dict[str, Any], name: str, other: str) -> dict[str, Any]:
    """The schema of an object in which the required `name` may also be called `other`."""
    return {
        **schema,
        "properties": {**schema["properties"], other: schema["properties"][name]},
        "required": [needed for needed in schema["required"] if needed != name],
        "if": {"not": _with(name)},
        "then": _with(other),
    }


def _with(name: str) -> dict[str, Any]:
    """Objects that have the key."""
    return {"properties": {name: {}}, "required": [name]}
