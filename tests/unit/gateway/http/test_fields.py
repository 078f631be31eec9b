"""The contract's rules about values, field by field: no HTTP."""

from typing import Any

import pytest
from marshmallow import ValidationError
from marshmallow import fields as marshmallow_fields

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


class Inner(RequestSchema):
    number = Whole(required=True)


def load(field: marshmallow_fields.Field[Any], value: Any) -> Any:
    schema = RequestSchema.from_dict({"value": field})
    return schema().load({"value": value})["value"]


def kinds(field: marshmallow_fields.Field[Any], value: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        load(field, value)
    messages = caught.value.messages["value"]
    while isinstance(messages, dict):
        messages = next(iter(messages.values()))
    assert all(isinstance(message, Message) and message for message in messages)
    return [message.kind for message in messages]


NULLABLE = [Text, Whole, lambda **kw: Choice(["a"], **kw), TextMap]
NULLABLE += [lambda **kw: Items(Text(), **kw), lambda **kw: Part(Inner, **kw)]
NULL_KINDS = ["string_type", "int_type", "enum", "dict_type", "list_type", "model_type"]


@pytest.mark.parametrize("value", [None, "", "null"])
@pytest.mark.parametrize("make", NULLABLE)
def test_empty_text_and_the_text_null_mean_null_where_null_is_allowed(make, value) -> None:
    assert load(make(allow_none=True), value) is None


@pytest.mark.parametrize(
    ("make", "kind"),
    list(zip(NULLABLE, NULL_KINDS, strict=True)),
)
def test_null_is_refused_elsewhere(make, kind: str) -> None:
    assert kinds(make(), None) == [kind]


def test_texts_that_look_like_null_stay_texts_where_null_is_not_allowed() -> None:
    assert load(Text(), "null") == "null"
    assert load(Text(), "") == ""


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3), (0, 0), (-3, -3), (2.0, 2), ("3", 3), (" 3 ", 3), ("+3", 3), ("-3", -3), ("2.0", 2),
        (10**30, 10**30), (1e300, int(1e300)), ("003", 3),
    ],
)  # fmt: skip
def test_whole_numbers_are_understood_in_any_form(value: Any, number: int) -> None:
    assert load(Whole(), value) == number


def test_a_number_of_any_length_is_a_number() -> None:
    assert load(Whole(), "9" * 100_000) > 10**3_000
    assert load(Whole(), "-" + "9" * 100_000) < -(10**3_000)
    assert kinds(Whole(least=0, most=5), "9" * 100_000) == ["value_error"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", "int_parsing"), ("", "int_parsing"), ("null", "int_parsing"), ("1.5", "int_parsing"),
        ("1e3", "int_parsing"), ("0x1", "int_parsing"), ("1_0", "int_parsing"),
        ("1.", "int_parsing"), ("١", "int_parsing"), ("1 2", "int_parsing"),
        (1.5, "int_from_float"),
        (True, "int_type"),
        ([], "int_type"), ({}, "int_type"),
    ],
)  # fmt: skip
def test_what_is_no_whole_number_is_named(value: Any, kind: str) -> None:
    assert kinds(Whole(), value) == [kind]


@pytest.mark.parametrize(("value", "allowed"), [(6, "0 to 5"), (-1, "0 to 5"), ("7", "0 to 5")])
def test_a_number_out_of_range_is_named_with_what_is_allowed(value: Any, allowed: str) -> None:
    with pytest.raises(ValidationError) as caught:
        load(Whole(least=0, most=5), value)
    (message,) = caught.value.messages["value"]
    assert message.kind == "value_error"
    assert str(value) in message
    assert allowed in message


@pytest.mark.parametrize("value", [3, True, [], {}, 1.5])
def test_nothing_else_is_turned_into_text(value: Any) -> None:
    assert kinds(Text(), value) == ["string_type"]
    assert kinds(Name(), value) == ["string_type"]


@pytest.mark.parametrize(
    ("spellings", "expected"), [("1 true T YES y On", True), ("0 false F NO n Off", False)]
)
def test_flags_in_any_spelling(spellings: str, expected: bool) -> None:
    assert {load(Flag(), text) for text in spellings.split()} == {expected}


@pytest.mark.parametrize("value", ["", "2", "maybe", " true", "null", "tru", "-1"])
def test_any_other_flag_cannot_be_parsed(value: str) -> None:
    assert kinds(Flag(), value) == ["bool_parsing"]


@pytest.mark.parametrize("value", ["c", "", "A", 3, [], {}, True])
def test_a_choice_names_what_is_allowed(value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        load(Choice(["a", "b"]), value)
    (message,) = caught.value.messages["value"]
    assert message.kind == "enum"
    assert "'a' or 'b'" in message


def test_errors_in_a_list_carry_their_positions() -> None:
    with pytest.raises(ValidationError) as caught:
        load(Items(Text()), ["a", 1, "b", None])
    assert list(caught.value.messages["value"]) == [1, 3]


def test_of_a_great_many_errors_the_first_ones_are_told() -> None:
    for field, value in (
        (Items(Text()), ["a", *range(300_000)]),
        (Items(Choice(["a"])), ["a", *range(300_000)]),
        (TextMap(), {"0": "a", **{str(key): key for key in range(1, 300_000)}}),
    ):
        with pytest.raises(ValidationError) as caught:
            load(field, value)
        found = caught.value.messages["value"]
        assert [int(key) for key in found] == list(range(1, MAX_FAULTS + 1))


def test_lists_and_mappings_without_errors_may_have_any_length() -> None:
    assert load(Items(Text()), ["a"] * 300_000) == ["a"] * 300_000
    many = {str(key): "a" for key in range(300_000)}
    assert load(TextMap(), many) == many


@pytest.mark.parametrize("value", ["x", 3, True])
def test_lists_and_mappings_are_not_made_of_something_else(value: Any) -> None:
    assert kinds(Items(Text()), value) == ["list_type"]
    assert kinds(TextMap(), value) == ["dict_type"]
    assert (kinds(Items(Text()), {}), kinds(TextMap(), [])) == (["list_type"], ["dict_type"])


def test_a_mapping_holds_texts() -> None:
    assert load(TextMap(), {"A": "", "B": "null"}) == {"A": "", "B": "null"}
    assert kinds(TextMap(), {"A": 1}) == ["string_type"]
    assert kinds(TextMap(), {"A": None}) == ["string_type"]


def test_unknown_keys_are_ignored_at_every_level() -> None:
    assert load(Part(Inner), {"number": 1, "other": []}) == {"number": 1}


@pytest.mark.parametrize(
    ("field", "texts"),
    [
        (Name(), ["a", "ü" * 127, "...", "a b", "%41", "<b>", "x" * 255]),
        (TreePath(), ["", "/", "//", "a", "a//b/", "/a"]),
    ],
)
def test_names_and_paths_stay_as_they_are(field: Name, texts: list[str]) -> None:
    assert [load(field, text) for text in texts] == texts


@pytest.mark.parametrize(
    ("field", "texts"),
    [
        (Name(), ["", ".", "..", "%2e%2e", "%252e.", "a/b", "/", "a\0", "a\n", "\x85", "x" * 256,
                  "\ud800"]),
        (TreePath(), ["..", "a/../b", "./a", "a/%2E", "a\0", "n" * 256, "a/" * 500]),
    ],
)  # fmt: skip
def test_names_and_paths_that_no_tree_can_have(field: Name, texts: list[str]) -> None:
    assert [kinds(field, text) for text in texts] == [["value_error"]] * len(texts)


def test_a_long_name_is_not_repeated_as_a_whole() -> None:
    with pytest.raises(ValidationError) as caught:
        load(Name(), "x" * 100_000)
    assert len(caught.value.messages["value"][0]) < 300
