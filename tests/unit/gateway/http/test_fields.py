"""The contract's rules about values, field by field: no HTTP."""

from typing import Any

import pytest
from marshmallow import ValidationError
from marshmallow.fields import Field as FieldType

from gateway.http.errors import MAX_FAULTS
from gateway.http.fields import (
    Choice,
    Flag,
    Items,
    Message,
    Name,
    Part,
    RequestSchema,
    Text,
    TextMap,
    TreePath,
    Whole,
)

Field = FieldType[Any]


class Inner(RequestSchema):
    number = Whole(required=True)


def load(field: Field, value: Any) -> Any:
    schema = RequestSchema.from_dict({"value": field})
    return schema().load({"value": value})["value"]


def messages(field: Field, value: Any) -> list[Message]:
    """Those of the first fault."""
    with pytest.raises(ValidationError) as caught:
        load(field, value)
    found = caught.value.messages["value"]
    while isinstance(found, dict):
        found = next(iter(found.values()))
    assert all(isinstance(message, Message) and message for message in found)
    return found


NULLABLE = [
    Text(allow_none=True),
    Whole(allow_none=True),
    TextMap(allow_none=True),
    Choice(["a"], allow_none=True),
    Items(Text(), allow_none=True),
    Part(Inner, allow_none=True),
]
LIMITED = Whole(least=0, most=5)
TEXTS = ["", "x", "null"]
NO_OBJECTS = [3, True, [], "x"]


@pytest.mark.parametrize(
    ("field", "values", "kind"),
    [
        (Text(), [None, 3, True, [], {}, 1.5], "string_type"),
        (Name(), [None, 3, True, [], {}, 1.5], "string_type"),
        (Name(), ["", ".", "..", "%2e%2e", "%252e.", "a/b", "/", "a\0", "a\n", "\x85", "x" * 256,
                  "\ud800"], "value_error"),
        (TreePath(), ["..", "a/../b", "./a", "a/%2E", "a\0", "n" * 256, "a/" * 500], "value_error"),
        (Whole(), ["x", "", "null", "1.5", "1e3", "0x1", "1_0", "1.", "١", "1 2"], "int_parsing"),
        (Whole(), [1.5], "int_from_float"),
        (Whole(), [None, True, [], {}], "int_type"),
        (LIMITED, [6, -1, "7", "9" * 100_000], "value_error"),
        (Flag(), ["", "2", "maybe", " true", "null", "tru", "-1"], "bool_parsing"),
        (Choice(["a", "b"]), [None, "c", "", "A", 3, [], {}, True], "enum"),
        (Items(Text()), [None, "x", 3, True, {}], "list_type"),
        (TextMap(), [None, *NO_OBJECTS], "dict_type"),
        (TextMap(), [{"A": 1}, {"A": None}], "string_type"),
        (Part(Inner), [None, *NO_OBJECTS], "model_type"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_wrong_values_are_named_by_their_kind(field: Field, values: list[Any], kind: str) -> None:
    for value in values:
        assert [message.kind for message in messages(field, value)] == [kind], value


@pytest.mark.parametrize(
    ("field", "value", "loaded"),
    [
        *[(field, value, None) for value in (None, "", "null") for field in NULLABLE],
        *[(Text(), text, text) for text in TEXTS],
        *[(Whole(), text, 3) for text in ("3", " 3 ", "+3", "003", "3.0", 3.0, 3)],
        *[(Whole(), number, number) for number in (0, -3, 10**30)],
        (Whole(), "-3", -3), (Whole(), 1e300, int(1e300)),
        *[(Flag(), text, True) for text in ("1", "true", "T", "YES", "y", "On")],
        *[(Flag(), text, False) for text in ("0", "false", "F", "NO", "n", "Off")],
        *[(Name(), text, text) for text in ("a", "ü" * 127, "...", "a b", "%41", "<b>", "x" * 255)],
        *[(TreePath(), text, text) for text in ("", "/", "//", "a", "a//b/", "/a")],
        (TextMap(), {"A": "", "B": "null"}, {"A": "", "B": "null"}),
        (Part(Inner), {"number": 1, "unknown": []}, {"number": 1}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, FieldType) else ascii(value)[:12],
)  # fmt: skip
def test_right_values_are_understood(field: Field, value: Any, loaded: Any) -> None:
    assert load(field, value) == loaded


def test_a_number_of_any_length_is_a_number() -> None:
    assert load(Whole(), "9" * 100_000) > 10**3_000
    assert load(Whole(), "-" + "9" * 100_000) < -(10**3_000)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [(LIMITED, 6, "0 to 5"), (LIMITED, -1, "0 to 5"), (Choice(["a", "b"]), 3, "'a' or 'b'")],
)
def test_a_message_names_the_allowed_values(field: Field, value: int, allowed: str) -> None:
    (message,) = messages(field, value)
    assert allowed in message
    assert str(value) in message or isinstance(field, Choice)


def test_a_long_name_is_not_repeated_as_a_whole() -> None:
    assert len(messages(Name(), "x" * 100_000)[0]) < 300


@pytest.mark.parametrize("inner", [Text(), Choice(["a"])])
def test_only_the_first_faults_of_a_list_are_reported_at_their_positions(inner: Field) -> None:
    with pytest.raises(ValidationError) as caught:
        load(Items(inner), ["a", *range(300_000)])
    assert list(caught.value.messages["value"]) == list(range(1, MAX_FAULTS + 1))


def test_only_the_first_faults_of_a_mapping_are_reported() -> None:
    with pytest.raises(ValidationError) as caught:
        load(TextMap(), {"0": "a", **{str(key): key for key in range(1, 300_000)}})
    found = caught.value.messages["value"]
    assert [int(key) for key in found] == list(range(1, MAX_FAULTS + 1))


def test_lists_and_mappings_without_faults_may_have_any_length() -> None:
    assert load(Items(Text()), ["a"] * 300_000) == ["a"] * 300_000
    many = {str(key): "a" for key in range(300_000)}
    assert load(TextMap(), many) == many
