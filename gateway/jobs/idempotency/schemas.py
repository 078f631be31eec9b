"""The header `Idempotency-Key`, and what it adds to the documents of operations."""

import re
from typing import Any, Final

from multidict import MultiMapping

from gateway.http.fields import AnyText, RequestSchema, invalid

LONGEST_KEY: Final = 255

_NAME: Final = "idempotency-key"

_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
"""A string as a structured field (RFC 9651, section 3.3.3)."""

_BARE: Final = re.compile(r"[ -~]*")
_ESCAPED: Final = re.compile(r"\\(.)")

KEY_PARAMETER: Final = {
    "in": "header",
    "name": "Idempotency-Key",
    "schema": {"type": "string", "minLength": 1},
    "example": '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    "description": f"Makes the request safe to repeat: 1 to {LONGEST_KEY} printable ASCII "
    "characters, quoted or bare. Repeated with the same key, method, path and body, it gets the "
    "answer of the first time, with `Idempotent-Replayed: true`; 409 with `Retry-After` while that "
    "one is under way; 422 with another method, path or body. A refused request frees its key.",
}

REPLAYED_HEADER: Final = {
    "Idempotent-Replayed": "`true`: the request was carried out before, and this is its answer."
}


class KeyText(AnyText):
    """The key, without quotes and escapes."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if text.startswith('"'):
            quoted = _QUOTED.fullmatch(text)
            key = _ESCAPED.sub(r"\1", quoted[1]) if quoted else ""
        else:
            key = text if _BARE.fullmatch(text) else ""
        if not 1 <= len(key) <= LONGEST_KEY:
            raise invalid(
                "value_error",
                f"Value error, a key has 1 to {LONGEST_KEY} printable ASCII characters,"
                ' either bare or as a quoted string, in which \\" and \\\\ stand for " and \\',
            )
        return key


class IdempotencyKeySchema(RequestSchema):
    """The key of a request that may be repeated."""

    key = KeyText(data_key=_NAME)

    def load(self, data: Any, **kwargs: Any) -> Any:
        """The key, if there is one; at once for a request without the header, as most are.

        Several lines are one value (RFC 9110, section 5.3).
        """
        if _NAME not in data:
            return {}
        if isinstance(data, MultiMapping):
            data = {_NAME: ", ".join(data.getall(_NAME))}
        return super().load(data, **kwargs)
