"""Labels of jobs: set at submission, replaced later."""

from typing import Any

import pytest

from tests.support.gateway import Api, on_both_databases, rows

pytestmark = on_both_databases

LABELS = {"exp": "7", "a" * 63: "x" * 255, "A-Z_a.z/0-9": "", "ü".encode().hex(): "ü:<>& '"}


def stored(api: Api, job_id: int) -> dict[str, str]:
    statement = "SELECT key, value FROM job_labels WHERE job_id = :id AND user_id = :user"
    return {row.key: row.value for row in rows(api.gateway, statement, id=job_id, user=api.user)}


@pytest.mark.parametrize("labels", [LABELS, {str(n): "" for n in range(16)}, {}, None, ...])
def test_a_submission_sets_labels_which_the_job_does_not_show(api: Api, labels: Any) -> None:
    job = api.new_job(labels=labels)
    assert stored(api, job["id"]) == (labels if isinstance(labels, dict) else {})
    assert "labels" not in job
    assert api.get(f"/jobs/{job['id']}").json() == job


WRONG = [
    ({"": "x"}, ("labels", ""), "value_error"),
    ({"a" * 64: "x"}, ("labels", "a" * 64), "value_error"),
    *(({key: "x"}, ("labels", key), "value_error") for key in ("a b", "a:b", "ü", "a\n", "a*")),
    ({"a": "x" * 256}, ("labels", "a"), "value_error"),
    ({"a": "x\n"}, ("labels", "a"), "value_error"),
    ({"a": "\x7f"}, ("labels", "a"), "value_error"),
    ({"a": 7}, ("labels", "a"), "string_type"),
    ({"a": None}, ("labels", "a"), "string_type"),
    ({str(n): "" for n in range(17)}, ("labels",), "value_error"),
    (["exp:7"], ("labels",), "dict_type"),
    ("exp:7", ("labels",), "dict_type"),
]


@pytest.mark.parametrize(("labels", "where", "kind"), WRONG, ids=lambda value: str(value)[:20])
def test_wrong_labels_are_refused_at_their_place(
    api: Api, labels: Any, where: tuple[str, ...], kind: str
) -> None:
    reply = api.submit(labels=labels, attributes={"files_down": {}})
    assert reply.faults() == {(("body", *where), kind)}
    assert api.get("/jobs").json() == []


def test_labels_go_with_their_job(api: Api) -> None:
    job = api.new_job(labels=LABELS)["id"]
    api.delete(f"/jobs/{job}")
    assert stored(api, job) == {}


def patch(api: Api, job_id: Any, **body: Any) -> Any:
    return api.send("PATCH", f"/jobs/{job_id}", json=body)


@pytest.mark.parametrize("labels", [LABELS, {"old": "2"}, {}])
def test_labels_are_replaced_as_a_whole_without_an_event(api: Api, labels: dict[str, str]) -> None:
    job = api.new_job(labels={"old": "1", "gone": ""})["id"]
    before = api.get(f"/jobs/{job}/events").json()
    reply = patch(api, job, labels=labels, status="error")
    assert (reply.status, reply.json()) == (200, api.get(f"/jobs/{job}?details=true").json())
    assert reply.json()["labels"] == labels
    assert reply.json()["status"] == "queued"
    assert api.get(f"/jobs/{job}/events").json() == before
    for label, expected in [("old", "old" in labels), ("gone", False), ("exp:7", "exp" in labels)]:
        found = [found["id"] for found in api.get(f"/jobs?label={label}").json()]
        assert found == ([job] if expected else [])


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({}, ("body", "labels", "missing")),
        ({"labels": None}, ("body", "labels", "dict_type")),
        *(({"labels": labels}, ("body", *where, kind)) for labels, where, kind in WRONG),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_replacement_leaves_the_labels(
    api: Api, body: dict[str, Any], fault: tuple[str, ...]
) -> None:
    job = api.new_job(labels=LABELS)["id"]
    assert patch(api, job, **body).faults() == {(fault[:-1], fault[-1])}
    assert stored(api, job) == LABELS


def test_jobs_of_others_are_not_labelled(api: Api, other: Api) -> None:
    job = api.new_job(labels=LABELS)["id"]
    for target in (job, 0, -1, 999_999_999, 2**70):
        reply = patch(other, target, labels={})
        assert (reply.status, reply.detail) == (404, "Job not found")
    assert stored(api, job) == LABELS
