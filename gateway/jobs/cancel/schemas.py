"""Requests and answers about cancelling jobs."""

from typing import Any, Final

from marshmallow import fields

from common.jobs.lifecycle import Cancellation
from gateway.http.fields import Items, RequestSchema, Text, Whole, invalid
from gateway.http.responses import AnswerSchema
from gateway.jobs.labels import LONGEST_LABEL

MOST_IDS: Final = 1_000
SELECTORS: Final = ("ids", "label", "batch_id")

RESULT_EXAMPLE: Final = [{"id": 1, "result": "cancelled"}, {"id": 2, "result": "ended"}]


class ReasonSchema(RequestSchema):
    """Why a job is cancelled."""

    may_be_missing = True

    reason = Text(
        longest=1_000,
        load_default=None,
        allow_none=True,
        metadata={"description": "For the job's run-time details.", "example": "wrong file"},
    )


class CancelSchema(ReasonSchema):
    """Which jobs to cancel, by exactly one of `ids`, `label`, `batch_id`; and why."""

    may_be_missing = False

    ids = Items(Whole(), most=MOST_IDS, metadata={"example": [1, 2]})
    label = Text(
        longest=LONGEST_LABEL,
        metadata={"description": "`key` or `key:value`.", "example": "exp:7"},
    )
    batch_id = Whole(metadata={"example": 4})

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Raises `ValidationError` unless one of the selectors is given, and only one."""
        loaded = super().load(data, **kwargs)
        given = [name for name in SELECTORS if name in loaded]
        if len(given) != 1:
            named = " and ".join(given) or "none"
            sentence = (
                f"Value error, exactly one of ids, label and batch_id expected, {named} given"
            )
            raise invalid("value_error", sentence)
        return loaded


class ResultSchema(AnswerSchema):
    """What cancelling one of the jobs came to."""

    id = fields.Integer()
    result = fields.String(metadata={"enum": [result.value for result in Cancellation]})
