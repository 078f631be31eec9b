"""Finding jobs: filters, orders, cursors, counts, checked against a model."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from common.database.engine import Database
from common.database.tables import job_labels, jobs
from common.jobs.lifecycle import Status
from devtools.postgres import run_apart
from gateway.jobs.finding.search import SORTS
from tests.support.gateway import Api, on_both_databases
from tests.support.records import add_job, change

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
    found = re.fullmatch(r'<(http://127\.0\.0\.1:\d+)(/jobs/?\?[^<>]+)>; rel="next"', link)
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


# -- by requests -----------------------------------------------------------------------------------


@pytest.fixture
def mine(api: Api) -> list[int]:
    """Seven jobs, oldest first."""
    return [api.new_job(labels={"exp": str(number % 2)})["id"] for number in range(7)]


def ids(reply: Any) -> list[int]:
    assert reply.status == 200, reply
    return [job["id"] for job in reply.json()]


def test_every_answer_with_more_behind_it_links_the_next_page(api: Api, mine: list[int]) -> None:
    newest = mine[::-1]
    assert list(pages(api, "/jobs?limit=3")) == [newest[:3], newest[3:6], newest[6:]]
    assert list(pages(api, "/jobs/?limit=3&offset=2&x=%20y")) == [newest[2:5], newest[5:]]
    for target in ("/jobs", "/jobs?limit=7", "/jobs?limit=0", "/jobs?offset=7", "/jobs?limit=200"):
        assert next_of(api.get(target)) is None
    link = next_of(api.get("/jobs?limit=2&offset=1&x=%20y&label=exp&label=exp:0&count=1"))
    assert link is not None
    assert re.match(r"/jobs\?limit=2&x=\+y&label=exp&label=exp%3A0&count=1&cursor=[\w-]+$", link)


def test_links_are_as_the_client_sees_this_api(api: Api, mine: list[int]) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "cloud.example"}
    link = api.get("/jobs/?limit=1", headers=headers).headers["link"]
    assert link.startswith("<https://cloud.example/jobs/?limit=1&cursor=")


def test_pages_by_cursor_neither_overlap_nor_skip_while_jobs_come_and_go(
    api: Api, mine: list[int]
) -> None:
    found, target = [], "/jobs?limit=2"
    while target:
        reply = api.get(target)
        found += ids(reply)
        api.new_job()
        if found[-1] in mine[1:]:
            api.delete(f"/jobs/{found[-1]}")  # the place of the cursor
        target = next_of(reply) or ""
    assert found == mine[::-1]


def test_a_cursor_is_of_its_user_filters_and_order_alone(
    api: Api, other: Api, mine: list[int]
) -> None:
    link = next_of(api.get("/jobs?limit=2&status=queued,error&label=exp"))
    assert link is not None
    cursor = link.rpartition("cursor=")[2]
    same = "status=error&label=exp&status=queued&label=exp&sort=-date_created&limit=9&details=true"
    assert ids(api.get(f"/jobs?{same}&count=true&cursor={cursor}")) == mine[4::-1]
    forged = [
        cursor[:-1],
        cursor + "A",
        "A" + cursor[1:],
        cursor[:-2] + "xx",
        "é",
        "A" * 5000,
        "==",
    ]
    queries = [f"{same}&cursor={quote(text)}" for text in forged]
    queries += [f"{change}&cursor={cursor}" for change in ("", "status=queued", f"{same}&name=*")]
    queries += [f"{same}&sort=date_created&cursor={cursor}"]
    for caller, query in [(other, f"{same}&cursor={cursor}"), *((api, query) for query in queries)]:
        assert caller.get(f"/jobs?{query}").faults() == {(("query", "cursor"), "value_error")}
    assert api.get(f"/jobs?{same}&offset=1&cursor={cursor}").faults() == {
        (("query", "offset"), "value_error")
    }
    assert api.get(f"/jobs?{same}&offset=0&cursor={cursor}").status == 200


@pytest.mark.parametrize(
    ("query", "allowed"),
    [
        ("status=done", "'queued', 'pulled'"),
        ("status=queued,done", "'queued', 'pulled'"),
        ("sort=id", "'-date_finished'"),
        ("sort=--status", "'-date_finished'"),
        ("environment=mars", "'cloud', 'local' or 'null'"),
        ("created_after=yesterday", "ISO 8601"),
        ("created_before=2026-13-01", "ISO 8601"),
        ("finished_after=0001-01-01T00:00:00%2B12:00", "ISO 8601"),
        ("finished_before=12:00", "ISO 8601"),
        ("batch_id=x", "integer"),
        ("label=a%20b", "a-z"),
        ("label=:x", "a-z"),
        ("count=maybe", "boolean"),
        ("details=maybe", "boolean"),
        ("name=a%0Ab", "none allowed"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_is_allowed(
    api: Api, query: str, allowed: str
) -> None:
    reply = api.get(f"/jobs?{query}")
    assert {place for place, _ in reply.faults()} == {("query", query.partition("=")[0])}
    assert allowed in reply.detail[0]["msg"]


EMPTY = "status=&application=&version=&entrypoint=&environment=&name=&label=&batch_id=&cursor="


@pytest.mark.parametrize(
    "query",
    [EMPTY, "created_after=&created_before=&finished_after=&finished_before=&sort=", "status=,"],
)
def test_an_empty_filter_is_none(api: Api, mine: list[int], query: str) -> None:
    assert ids(api.get(f"/jobs?{query}")) == mine[::-1]


@pytest.mark.parametrize("batch", ["0", "-1", "9" * 30])
def test_a_batch_of_nobody_has_no_jobs(api: Api, mine: list[int], batch: str) -> None:
    reply = api.get(f"/jobs?batch_id={batch}&count=true")
    assert (ids(reply), reply.headers["x-total-count"]) == ([], "0")
    reply = api.get(f"/jobs?batch_id={batch}&cursor=AAAA")
    assert reply.faults() == {(("query", "cursor"), "value_error")}


@pytest.mark.parametrize("offset", [2**31, 2**62, 2**63 - 1, int("9" * 30)])
@pytest.mark.parametrize("query", ["", "status=queued", "sort=job_name&count=true", "limit=500"])
def test_beyond_all_jobs_there_are_none(api: Api, mine: list[int], offset: int, query: str) -> None:
    reply = api.get(f"/jobs?offset={offset}&{query}")
    assert (ids(reply), "link" in reply.headers) == ([], False)


@pytest.mark.parametrize(
    "same",
    [
        "{0:%Y-%m-%dT%H:%M:%S.%f}",
        "{0:%Y-%m-%d %H:%M:%S.%f}Z",
        "{0:%Y%m%dT%H%M%S.%f}z",
        "{1:%Y-%m-%dT%H:%M:%S.%f}+02:00",
        "{1:%Y-%m-%dT%H:%M:%S.%f}%2B02:00",
        "{1:%Y-%m-%d %H:%M:%S.%f}+0200",
    ],
)
def test_dates_are_from_inclusive_and_until_exclusive(api: Api, mine: list[int], same: str) -> None:
    created = datetime.fromisoformat(api.get(f"/jobs/{mine[3]}").json()["date_created"])
    date = same.format(created, created + timedelta(hours=2)).replace(" ", "%20")
    assert ids(api.get(f"/jobs?created_after={date}&sort=date_created")) == mine[3:]
    assert ids(api.get(f"/jobs?created_before={date}&sort=date_created")) == mine[:3]


def test_a_count_is_over_all_pages(api: Api, mine: list[int]) -> None:
    reply = api.get("/jobs?count=true&limit=2&label=exp:0")
    assert (len(reply.json()), reply.headers["x-total-count"]) == (2, "4")
    assert api.get("/jobs?count=true&limit=0").headers["x-total-count"] == "7"
    assert "x-total-count" not in api.get("/jobs").headers
    origin = {"Origin": api.gateway.environment["FRONTEND_URL"]}
    exposed = api.get("/jobs", headers=origin).headers["access-control-expose-headers"].split(", ")
    assert {"Link", "X-Total-Count"} <= set(exposed)


def test_jobs_of_others_are_never_found(api: Api, other: Api, mine: list[int]) -> None:
    for query in (
        "",
        "status=queued",
        "label=exp",
        "name=*",
        "sort=status",
        "created_after=2020-01-01",
    ):
        reply = other.get(f"/jobs?count=true&{query}")
        assert (ids(reply), reply.headers["x-total-count"]) == ([], "0")


def test_a_deleted_job_is_not_found(api: Api, mine: list[int]) -> None:
    in_database(api, lambda database: change(database, jobs, mine[3], deleted_at=START))
    left = [*mine[:3], *mine[4:]][::-1]
    for query in ("status=queued", "label=exp", "name=*", "application=decode", "environment=null"):
        reply = api.get(f"/jobs?count=true&{query}")
        assert (ids(reply), reply.headers["x-total-count"]) == (left, "6")
