"""Finding jobs: filters, orders, cursors, counts, checked against a model."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from common.database.engine import Database
from common.database.tables import job_labels
from common.jobs.lifecycle import Status
from devtools.postgres import run_apart
from gateway.jobs.finding.search import SORTS
from tests.support.gateway import Api, on_both_databases
from tests.support.records import add_job

pytestmark = on_both_databases

START = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - UTC
NAMES = [
    None,
    "train_1",
    "train%2",
    "Train*3",
    "trai[n]?",
    "t\\4",
    "é",
    "Z",
    "zz",
    "\U0001f600",
    "'",
]
PATTERNS = [
    *("train*", "*", "*1", "t*n*", "tra[i*", "trai[n]?", "Train\\*3", "T*", "é*", "\U0001f600*"),
    *("train_1", "train_*", "*%*", "no", "t\\*", "*?", "**", "\U0010ffff*", "'*"),
]
LABELS = ["exp", "exp:7", "exp:8", "seed:", "seed", "none", "a/b:x:y"]
VALUES = {"exp": "78", "seed": ["", "1"], "a/b": ["x:y", "x"]}
APPLICATION = {
    "application": ["decode", "other"],
    "version": ["v1", "v2"],
    "entrypoint": ["fit", "t"],
}


def job_of(random: Random, number: int) -> dict[str, Any]:
    """A job as it may be in a database, an adopted one included; many are alike."""
    name = NAMES[number] if number < len(NAMES) else random.choice([None, f"job_{number}"])
    created = random.choice([None, START + timedelta(days=random.randrange(4))])
    finished = (created or START) + timedelta(days=random.randrange(3))
    application: Any = {key: random.choice(values) for key, values in APPLICATION.items()}
    return {
        "job_name": name,
        "status": random.choice([status.value for status in Status]),
        "environment": random.choice([None, "any", "cloud", "local"]),
        "application": random.choice([application] * 5 + [{}, [1], "text"]),
        "batch_id": random.choice([None, 1, 2]),
        "date_created": created,
        "date_finished": random.choice([None, finished]),
    }


async def add_many(database: Database, user: str) -> list[dict[str, Any]]:
    random, made = Random(7), []
    for number in range(70):
        job = job_of(random, number)
        job["id"] = await add_job(database, user_id=user, **job)
        given_ = {
            key: random.choice(values) for key, values in VALUES.items() if random.random() < 0.5
        }
        job["labels"] = given_
        labels = [
            {"job_id": job["id"], "user_id": user, "date_created": job["date_created"],
             "key": key, "value": value}
            for key, value in given_.items()
        ]  # fmt: skip
        if labels:
            async with database.transaction() as tx:
                await tx.execute(insert(job_labels), labels)
        made.append(job)
    return made


def in_database(api: Api, work: Any) -> Any:
    async def run() -> Any:
        database = Database(api.gateway.settings.database)
        try:
            return await work(database)
        finally:
            await database.close()

    return run_apart(run())


def matches(job: dict[str, Any], query: dict[str, Any]) -> bool:
    application = job["application"] if isinstance(job["application"], dict) else {}
    environment = job["environment"] if job["environment"] in {"cloud", "local"} else "null"
    checks = [
        "status" not in query or job["status"] in query["status"],
        *(key not in query or application.get(key) == query[key] for key in APPLICATION),
        query.get("environment") in {None, environment},
        query.get("batch_id") in {None, job["batch_id"]},
    ]
    if "name" in query:
        pattern = re.sub(r"([\[?])", r"[\1]", query["name"])
        checks.append(job["job_name"] is not None and fnmatchcase(job["job_name"], pattern))
    for label in query.get("label", ()):
        key, colon, value = label.partition(":")
        checks.append(key in job["labels"] and (not colon or job["labels"][key] == value))
    for what in ("created", "finished"):
        date = job[f"date_{what}"]
        if f"{what}_after" in query:
            checks.append(
                date is not None and date >= datetime.fromisoformat(query[f"{what}_after"])
            )
        if f"{what}_before" in query:
            checks.append(
                date is not None and date < datetime.fromisoformat(query[f"{what}_before"])
            )
    return all(checks)


def in_order(found: list[dict[str, Any]], sort: str) -> list[int]:
    key = sort.removeprefix("-")
    keyed = sorted(
        (job for job in found if job[key] is not None), key=lambda job: (job[key], job["id"])
    )
    keyless = sorted((job for job in found if job[key] is None), key=lambda job: job["id"])
    step = -1 if sort.startswith("-") else 1
    return [job["id"] for part in (keyed, keyless) for job in part[::step]]


dates = st.integers(-1, 4).map(lambda day: (START + timedelta(days=day)).isoformat())
filters = {
    "status": st.lists(st.sampled_from([status.value for status in Status]), min_size=1),
    **{key: st.sampled_from([*values, "no"]) for key, values in APPLICATION.items()},
    "environment": st.sampled_from(["cloud", "local", "null"]),
    "name": st.sampled_from(PATTERNS),
    "label": st.lists(st.sampled_from(LABELS), min_size=1, max_size=3),
    "batch_id": st.sampled_from([1, 2, 3]),
    **{f"{what}_{end}": dates for what in ("created", "finished") for end in ("after", "before")},
}
queries = st.lists(st.sampled_from(sorted(filters)), unique=True, max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({name: filters[name] for name in names})
)
sorts = st.sampled_from([direction + key for key in SORTS for direction in ("", "-")])


def target_of(query: dict[str, Any], **more: Any) -> str:
    return f"/jobs?{urlencode({**query, **more}, doseq=True)}"


def next_of(reply: Any) -> str | None:
    """The target of the next page; the URL is absolute."""
    link = reply.headers.get("link")
    if link is None:
        return None
    found = re.fullmatch(r'<(http://127\.0\.0\.1:\d+)(/jobs\?[^<>]+)>; rel="next"', link)
    assert found, link
    return found[2]


def pages(api: Api, target: str | None) -> Iterator[list[int]]:
    while target:
        reply = api.get(target)
        assert reply.status == 200, reply
        yield [job["id"] for job in reply.json()]
        target = next_of(reply)


@pytest.fixture(scope="module")
def filled(gateway: Any, issuer: Any) -> tuple[Api, list[dict[str, Any]]]:
    # not a `Gateway`, whose answers are checked: adopted jobs do not keep to the schema
    unchecked: Any = SimpleNamespace(port=gateway.port, settings=gateway.settings)
    api = Api(unchecked, "finder", issuer.token("finder"))
    return api, in_database(api, lambda database: add_many(database, api.user))


@settings(
    max_examples=150,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(query=queries, sort=sorts, limit=st.integers(1, 30), offset=st.integers(0, 5))
def test_pages_hold_what_matches_in_order(
    filled: Any, query: dict[str, Any], sort: str, limit: int, offset: int
) -> None:
    api, made = filled
    expected = in_order([job for job in made if matches(job, query)], sort)
    target = target_of(query, sort=sort, limit=limit, offset=offset, count="true")
    found = list(pages(api, target))
    assert [job for page in found for job in page] == expected[offset:], target
    assert all(len(page) == limit for page in found[:-1])
    assert found[-1] or len(found) == 1
    assert api.get(target).headers["x-total-count"] == str(len(expected))
