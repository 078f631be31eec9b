"""Job rows as JSON."""

from datetime import datetime

import orjson
import pytest

from gateway.jobs.rows import COLUMNS, HARDWARE_KEYS, job_as_json


def test_hardware_of_an_adopted_row_is_five_keys_whatever_it_says() -> None:
    values = {column.name: None for column in COLUMNS}
    values |= {"application": "{}", "attributes": "{}", "paths_out": "{}"}
    for stored in (None, "null", "[1]", '"x"', '{"memory": NaN}', ""):
        job = orjson.loads(
            orjson.dumps(job_as_json(tuple({**values, "hardware": stored}.values())))
        )
        assert job["hardware"] == dict.fromkeys(HARDWARE_KEYS)


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("2026-01-01T12:00:00.123456", "2026-01-01T12:00:00.123456"),
        ("2026-01-01T12:00:00.000100", "2026-01-01T12:00:00.000100"),
        ("2026-01-01T12:00:00", "2026-01-01T12:00:00.000000"),
        (None, None),
    ],
)
def test_moments_always_have_microseconds(stored: str | None, shown: str | None) -> None:
    moment = stored and datetime.fromisoformat(stored)
    values = {column.name: None for column in COLUMNS}
    values |= {"application": "{}", "attributes": "{}", "paths_out": "{}"}
    values |= dict.fromkeys(("date_created", "date_started", "date_finished"), moment)
    job = orjson.loads(orjson.dumps(job_as_json(tuple(values.values()))))
    assert [job[key] for key in ("date_created", "date_started", "date_finished")] == [shown] * 3
