"""The job as clients read it: one declaration, documented as it is."""

from datetime import datetime

import orjson
import pytest
from sqlalchemy.dialects import postgresql

from common.jobs import answer as columns
from gateway.jobs.schemas import HARDWARE_KEYS, JOB_EXAMPLE, JobSchema
from tests.support.answers import check_answer

NONE = dict.fromkeys(HARDWARE_KEYS)


def test_the_schema_documents_every_key_of_a_job() -> None:
    assert set(columns.JOB_KEYS) == set(JobSchema().fields)
    assert columns.HARDWARE_KEYS == HARDWARE_KEYS


@pytest.mark.parametrize("stored", [None, "", "null", "[]", "{", '"text"', "3"])
def test_malformed_hardware_is_shown_as_no_requirement(stored: str | None) -> None:
    assert orjson.loads(orjson.dumps(columns._complete_hardware(stored))) == NONE


def test_hardware_has_all_its_keys_and_no_others() -> None:
    shown = orjson.loads(orjson.dumps(columns._complete_hardware('{"memory": 4, "other": 5}')))
    assert shown == {**NONE, "memory": 4}


def test_dates_are_answered_with_microseconds() -> None:
    convert = columns._Date().result_processor(postgresql.dialect(), None)
    texts = ["2026-01-01T12:00:00.000000", "2026-01-01T12:00:00.000005"]
    shown = [*map(convert, map(datetime.fromisoformat, texts)), convert(None)]
    assert orjson.loads(orjson.dumps(shown)) == [*texts, None]


@pytest.mark.parametrize(
    ("status", "answer", "complaint"),
    [
        (200, {**JOB_EXAMPLE, "news": 1}, "'news' was unexpected"),
        (200, {**JOB_EXAMPLE, "hardware": {**NONE, "news": 1}}, "'news' was unexpected"),
        (200, {**JOB_EXAMPLE, "priority": "high"}, "priority"),
        (418, {"detail": "x"}, "418 is not documented"),
    ],
    ids=["key", "inner key", "type", "status"],
)
def test_the_tests_client_refuses_what_is_not_documented(
    status: int, answer: dict[str, object], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_answer("GET", "/jobs/1", status, "application/json", orjson.dumps(answer))
