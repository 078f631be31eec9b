"""Marshmallow fields with the contract's rules, and with Pydantic 2's kinds of errors
(`int_parsing`, `string_type`, `missing`, …) and their messages, since existing clients know them.

Numbers may be text or whole floats. Where null is allowed, an empty text and the text `null` mean
null, since the front end sends them for emptied fields and for "any".
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Self

from marshmallow import EXCLUDE, Schema, ValidationError, fields, missing

from common.storage.errors import InvalidPath
from common.storage.paths import CONTROL, UserPath, check_name
from gateway.http.errors import MAX_FAULTS, misnamed, shortened

_INTEGER = re.compile(r"\s*[+-]?[0-9]+(\.0+)?\s*", re.ASCII)
_SPELLINGS: Final = dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True) | dict.fromkeys(
    ("0", "false", "f", "no", "n", "off"), False
)

_MAX_DIGITS: Final = 4_000
MAX_INTEGER: Final = 2**53
"""Largest whole number that every JSON reader keeps exact."""


class Message(str):
    """An error message with its kind (`type` in the contract's errors)."""

    kind: str

    def __new__(cls, text: str, kind: str) -> Self:
        message = super().__new__(cls, text)
        message.kind = kind
        return message


def invalid(kind: str, text: str) -> ValidationError:
    """A field's error of the given kind."""
    return ValidationError(Message(text, kind))


def means_null(value: Any) -> bool:
    """Whether the value means null, where null is allowed."""
    return value is None or value == "" or value == "null"


class RequestSchema(Schema):
    """A schema for requests: unknown keys are ignored."""

    class Meta:
        unknown = EXCLUDE

    error_messages = {"type": "Input should be an object"}  # noqa: RUF012 - marshmallow's way

    @cached_property
    def repeated(self) -> frozenset[str]:
        """The parameters that may be repeated."""
        return frozenset(
            field.data_key or name
            for name, field in self.load_fields.items()
            if isinstance(field, Several)
        )


class _ContractField(fields.Field[Any]):
    """What the fields below share: the error for another type or null, and spellings of null."""

    wrong_type = Message("Input should be a valid string", "string_type")

    def deserialize(
        self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any
    ) -> Any:
        if value is missing:
            if self.required:
                raise invalid("missing", "Field required")
            return self.load_default
        if self.allow_none and means_null(value):
            return None
        if value is None:
            raise ValidationError(self.wrong_type)
        return self._deserialize(value, attr, data, **kwargs)


class AnyText(_ContractField, fields.String):
    """A text of any length and content: for what is checked elsewhere, or is never refused."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(self.wrong_type)
        return value


class Text(AnyText):
    """A text of people: at most `longest` characters, and no control characters, which would
    forge lines in logs and mails, and of which PostgreSQL cannot store NUL.

    A message never repeats the text, which may be a password.
    """

    def __init__(self, *, longest: int = 255, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.longest = longest
        self.metadata = {"maxLength": longest, **self.metadata}

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if len(text) > self.longest:  # before each character is read: there may be megabytes
            raise _beyond(len(text), self.longest, "characters")
        if found := CONTROL.search(text):
            sentence = f"control character U+{ord(found[0]):04X} given, none allowed"
            raise invalid("value_error", f"Value error, {sentence}")
        return text

    def accepts_all(self, values: list[Any]) -> bool:
        """Whether every value is such a text: for long lists, at a fraction of the time."""
        return (
            all(type(value) is str and len(value) <= self.longest for value in values)
            and CONTROL.search("".join(values)) is None
        )


def _beyond(given: int, most: float, what: str) -> ValidationError:
    return invalid("value_error", f"Value error, {given} {what} given, at most {most} allowed")


class Name(AnyText):
    """A text that can be the name of one directory, and that people can see."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            check_name(text)
        except InvalidPath as error:
            raise invalid("value_error", misnamed(text, error)) from error
        if text.isspace():
            blank = InvalidPath("a name must not consist of blanks alone")
            raise invalid("value_error", misnamed(text, blank))
        return text


class TreePath(AnyText):
    """A text that can be a path in a user's tree, ignoring empty segments."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            UserPath.parse("", text)
        except InvalidPath as error:
            raise invalid("value_error", misnamed(text, error)) from error
        return text


class Whole(_ContractField, fields.Integer):
    """A whole number from `least` to `most`; `most` is only used with `least`."""

    wrong_type = Message("Input should be a valid integer", "int_type")

    def __init__(self, *, least: int | None = None, most: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.least = -math.inf if least is None else least
        self.most = math.inf if most is None else most
        self.allowed = f"{least} or more" if most is None else f"{least} to {most}"
        limits = {"minimum": least, "maximum": most}
        self.metadata = {**{k: v for k, v in limits.items() if v is not None}, **self.metadata}

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> int:
        number = self._parse(value)
        if not self.least <= number <= self.most:
            given = number if abs(number) <= MAX_INTEGER else "a huge number"
            raise invalid("value_error", f"Value error, {given} given, {self.allowed} allowed")
        return number

    def _parse(self, value: Any) -> int:
        if isinstance(value, str):
            if not _INTEGER.fullmatch(value):
                sentence = f"{self.wrong_type}, unable to parse string as an integer"
                raise invalid("int_parsing", sentence)
            # Python refuses longer ones; cut short, such a number is still beyond every limit
            return int(value.strip().partition(".")[0][:_MAX_DIGITS])
        if isinstance(value, float):
            if not value.is_integer():
                sentence = f"{self.wrong_type}, got a number with a fractional part"
                raise invalid("int_from_float", sentence)
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValidationError(self.wrong_type)
        return value


class Flag(_ContractField, fields.Boolean):
    """A boolean of the query string, in any of the usual spellings."""

    wrong_type = Message("Input should be a valid boolean", "bool_type")

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> bool:
        if (text := str(value).lower()) in _SPELLINGS:
            return _SPELLINGS[text]
        raise invalid("bool_parsing", "Input should be a valid boolean, unable to interpret input")


class Choice(_ContractField, fields.String):
    """One of a few texts."""

    def __init__(self, choices: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choices = tuple(choices)
        enum = [*self.choices, None] if self.allow_none else [*self.choices]
        self.metadata = {"enum": enum, **self.metadata}
        *others, last = [f"'{choice}'" for choice in self.choices]
        allowed = f"{', '.join(others)} or {last}" if others else last
        self.wrong_type = Message(f"Input should be {allowed}", "enum")

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str) or value not in self.choices:
            raise ValidationError(self.wrong_type)
        return value


class Items(_ContractField, fields.List[Any]):
    """A list, of at most `most` items if that is given; errors of its items carry their position.

    The valid items of a faulty list are inspected further, with None in place of the others.
    Validation stops after `MAX_FAULTS` errors.
    """

    wrong_type = Message("Input should be a valid list", "list_type")

    def __init__(self, inner: fields.Field[Any], *, most: int | None = None, **kwargs: Any) -> None:
        super().__init__(inner, **kwargs)
        self.most = math.inf if most is None else most
        if most is not None:
            self.metadata = {"maxItems": most, **self.metadata}

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValidationError(self.wrong_type)
        if len(value) > self.most:
            raise _beyond(len(value), self.most, "items")
        if isinstance(self.inner, Text) and self.inner.accepts_all(value):
            return value
        result, errors = [], {}
        for index, item in enumerate(value):
            try:
                result.append(self.inner.deserialize(item, **kwargs))
            except ValidationError as error:
                errors[index] = error.messages
                result.append(None)
                if len(errors) == MAX_FAULTS:
                    break
        if errors:
            raise ValidationError(errors, valid_data=result)
        return result


class Several(_ContractField, fields.List[Any]):
    """A parameter of the query string that may be repeated, `most` times at most; empty where it
    is missing.

    The error of a value is the parameter's.
    """

    def __init__(
        self, inner: Any, *, most: int, separator: str | None = None, **kwargs: Any
    ) -> None:
        """With a `separator`, one value may hold several, or none."""
        super().__init__(inner, load_default=(), **kwargs)
        self.most = most
        self.separator = separator

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[Any]:
        if self.separator is not None:
            parts = [part.strip() for text in value for part in text.split(self.separator)]
            value = [part for part in parts if part]
        if len(value) > self.most:
            raise _beyond(len(value), self.most, "values")
        return [self.inner.deserialize(item, **kwargs) for item in value]


class TextMap(_ContractField, fields.Dict):
    """An object of names (at most `most`, if that is given), each with a text of at most `longest`
    characters; the valid part of a faulty one is inspected further.

    At most `MAX_FAULTS` errors are reported.
    """

    wrong_type = Message("Input should be a valid dictionary", "dict_type")

    def __init__(
        self,
        *,
        name: Text | None = None,
        most: int | None = None,
        longest: int = 255,
        **kwargs: Any,
    ) -> None:
        self._name, self._text = name or Text(), Text(longest=longest)
        super().__init__(keys=self._name, values=self._text, **kwargs)
        self.most = math.inf if most is None else most
        if most is not None:
            self.metadata = {"maxProperties": most, **self.metadata}

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> dict[str, str]:
        if not isinstance(value, Mapping):
            raise ValidationError(self.wrong_type)
        if len(value) > self.most:
            raise _beyond(len(value), self.most, "names")
        valid, errors = {}, {}
        for name, text in value.items():
            try:
                valid[self._name.deserialize(name)] = self._text.deserialize(text)
            except ValidationError as error:
                errors[shortened(name)] = error.messages
                if len(errors) == MAX_FAULTS:
                    break
        if errors:
            raise ValidationError(errors, valid_data=valid)
        return valid


class Part(_ContractField, fields.Nested):
    """An object inside an object.

    Its schema's hooks do not run: loading the fields directly takes half of marshmallow's time.
    """

    wrong_type = Message("Input should be an object", "model_type")

    def _deserialize(
        self, value: Any, attr: Any, data: Any, partial: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValidationError(self.wrong_type)
        result, errors = {}, {}
        for name, inner in self.schema.load_fields.items():
            try:
                result[name] = inner.deserialize(value.get(name, missing), name, value)
            except ValidationError as error:
                errors[name] = error.messages
                if error.valid_data:
                    result[name] = error.valid_data
        if errors:
            raise ValidationError(errors, valid_data=result)
        return result


class PartAsSent(Part):
    """An object inside an object, whose content is documented here and checked elsewhere."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError(self.wrong_type)
        return value
