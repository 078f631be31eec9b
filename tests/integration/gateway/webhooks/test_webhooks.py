"""`/webhooks`: adding, changing, testing and removing webhooks."""

import json
import re
from base64 import b64decode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from common.webhooks.keys import SecretBox
from tests.support.gateway import Api, Reply, audited, fresh, on_both_databases, rows

URL = "https://example.org/hooks/1"

pytestmark = on_both_databases


def add(api: Api, **wanted: Any) -> dict[str, Any]:
    reply = api.post("/webhooks", json={"url": URL, **wanted})
    assert reply.status == 201, reply
    return reply.json()


def row_of(api: Api, webhook_id: int) -> Any:
    (row,) = rows(api.gateway, "SELECT * FROM webhooks WHERE id = :id", id=webhook_id)
    return row


def key_bytes(secret: str) -> bytes:
    assert secret.startswith("whsec_")
    return b64decode(secret.removeprefix("whsec_"), validate=True)


def test_a_new_webhook_shows_its_secret_once(api: Api) -> None:
    reply = api.post("/webhooks", json={"url": URL})
    added = reply.json()
    secret = added.pop("secret")
    assert 24 <= len(key_bytes(secret)) <= 64
    assert reply.headers["cache-control"] == "no-store"
    assert added == {
        "id": added["id"],
        "url": URL,
        "events": ["finished", "error"],
        "labels": [],
        "disabled_at": None,
    }
    assert api.get("/webhooks").json() == [added]
    assert api.get(f"/webhooks/{added['id']}").json() == added
    sealed = row_of(api, added["id"]).secret
    assert secret not in sealed
    assert SecretBox(api.gateway.settings.webhooks.keys).open(sealed) == secret


def test_events_and_labels_are_kept_as_given(api: Api) -> None:
    wanted = {"events": ["status", "cancelled", "status"], "labels": ["exp:7", "exp", "a/b:c:d"]}
    added = add(api, **wanted)
    assert added["events"] == ["status", "cancelled"]
    assert added["labels"] == wanted["labels"]
    assert add(api, labels=None)["labels"] == []


def test_a_user_may_have_ten_however_fast_they_come(api: Api) -> None:
    def try_one(_: int) -> Reply:
        return api.post("/webhooks", json={"url": URL})

    with ThreadPoolExecutor(20) as threads:
        replies = list(threads.map(try_one, range(20)))
    assert Counter(reply.status for reply in replies) == {201: 10, 409: 10}
    refused = next(reply for reply in replies if reply.status == 409)
    assert refused.detail == "A user may have at most 10 webhooks"
    kept = api.get("/webhooks").json()
    assert len(kept) == 10
    assert api.delete(f"/webhooks/{kept[0]['id']}").status == 204
    add(api)


def test_a_change_leaves_the_rest(api: Api) -> None:
    added = add(api, labels=["exp"])
    target = f"/webhooks/{added['id']}"
    del added["secret"]
    for change in ({}, {"events": ["status"]}, {"labels": []}, {"url": f"{URL}?a=b"}):
        changed = api.send("PATCH", target, json=change)
        added |= change
        assert (changed.status, changed.json()) == (200, added)
        assert api.get(target).json() == added


def test_a_webhook_is_disabled_and_enabled_again(api: Api) -> None:
    target = f"/webhooks/{add(api)['id']}"
    assert api.post(f"{target}/test").status == 202
    disabled = api.send("PATCH", target, json={"disabled": True}).json()["disabled_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", disabled)
    again = api.send("PATCH", target, json={"disabled": True}).json()
    assert again["disabled_at"] == disabled
    (delivery,) = api.get(f"{target}/deliveries").json()
    assert delivery["next_attempt"] is None
    assert api.post(f"{target}/test").status == 409
    assert api.post(f"{target}/deliveries/{delivery['id']}/redeliver").status == 409
    assert api.send("PATCH", target, json={"disabled": False}).json()["disabled_at"] is None
    assert api.post(f"{target}/test").status == 202


def test_a_webhook_that_is_enabled_again_starts_in_good_standing(api: Api) -> None:
    added = add(api)
    change = (
        "UPDATE webhooks SET disabled_at = created_at, failing_since = created_at, failures = 9,"
        " paused_until = created_at WHERE id = :id RETURNING id"
    )
    assert rows(api.gateway, change, id=added["id"])
    api.send("PATCH", f"/webhooks/{added['id']}", json={"disabled": False})
    row = row_of(api, added["id"])
    assert (row.disabled_at, row.failing_since, row.failures) == (None, None, 0)
    assert row.paused_until is None


def test_a_deleted_webhook_is_gone_with_its_deliveries(api: Api) -> None:
    added = add(api)
    target = f"/webhooks/{added['id']}"
    api.post(f"{target}/test")
    assert api.delete(target).status == 204
    assert api.delete(target).status == 404
    assert api.get("/webhooks").json() == []
    statement = "SELECT id FROM webhook_deliveries WHERE webhook_id = :id"
    assert rows(api.gateway, statement, id=added["id"]) == []


def test_a_replaced_secret_is_kept_for_a_day(api: Api) -> None:
    added = add(api)
    reply = api.post(f"/webhooks/{added['id']}/rotate")
    rotated = reply.json()
    assert reply.status == 200
    assert reply.headers["cache-control"] == "no-store"
    assert key_bytes(rotated["secret"]) != key_bytes(added["secret"])
    assert {**rotated, "secret": added["secret"]} == added
    row = row_of(api, added["id"])
    box = SecretBox(api.gateway.settings.webhooks.keys)
    assert (box.open(row.secret), box.open(row.previous_secret)) == (
        rotated["secret"],
        added["secret"],
    )
    (lasting,) = rows(
        api.gateway,
        "SELECT previous_until > created_at FROM webhooks WHERE id = :id",
        id=added["id"],
    )
    assert lasting[0]


def test_secrets_that_are_replaced_on_one_day_are_all_kept_but_not_without_end(api: Api) -> None:
    added = add(api)
    target = f"/webhooks/{added['id']}"
    box = SecretBox(api.gateway.settings.webhooks.keys)
    secrets = [added["secret"]]

    def previous() -> list[str]:
        return [box.open(sealed) for sealed in row_of(api, added["id"]).previous_secret.split()]

    for _ in range(6):
        rotated = api.post(f"{target}/rotate").json()["secret"]
        assert previous() == secrets[:4]
        secrets.insert(0, rotated)
    ended = "UPDATE webhooks SET previous_until = created_at WHERE id = :id RETURNING id"
    assert rows(api.gateway, ended, id=added["id"])
    api.post(f"{target}/rotate")
    assert previous() == secrets[:1]


def test_a_test_message_is_listed_and_can_be_sent_again(api: Api) -> None:
    target = f"/webhooks/{add(api)['id']}"
    first, second = (api.post(f"{target}/test").json() for _ in range(2))
    assert first == {
        "id": first["id"],
        "event": "webhook.test",
        "attempts": 0,
        "last_status": None,
        "date": first["date"],
        "next_attempt": first["next_attempt"],
    }
    assert first["next_attempt"] is not None
    assert api.get(f"{target}/deliveries").json() == [second, first]
    assert api.get(f"{target}/deliveries?limit=1").json() == [second]
    assert api.get(f"{target}/deliveries?offset=1").json() == [first]
    (payload,) = rows(
        api.gateway, "SELECT payload FROM webhook_deliveries WHERE message = :m", m=first["id"]
    )
    body = json.loads(payload[0])
    assert (body["type"], body["data"]) == ("webhook.test", {})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", body["timestamp"])

    settled = (
        "UPDATE webhook_deliveries SET state = 'failed', settled_at = created_at, attempts = 10,"
        " last_status = 500 WHERE message = :m RETURNING id"
    )
    assert rows(api.gateway, settled, m=first["id"])
    listed = api.get(f"{target}/deliveries").json()[1]
    assert (listed["attempts"], listed["last_status"], listed["next_attempt"]) == (10, 500, None)
    again = api.post(f"{target}/deliveries/{first['id']}/redeliver")
    assert again.status == 202
    assert (again.json()["id"], again.json()["attempts"]) == (first["id"], 10)
    assert again.json()["next_attempt"] is not None


@pytest.mark.parametrize("state", ["pending", "sending", "in_doubt", "done", "failed", "dropped"])
def test_a_delivery_has_a_next_attempt_until_it_is_settled(api: Api, state: str) -> None:
    target = f"/webhooks/{add(api)['id']}"
    message = api.post(f"{target}/test").json()["id"]
    change = (
        f"UPDATE webhook_deliveries SET state = '{state}' WHERE message = :message RETURNING id"
    )
    assert rows(api.gateway, change, message=message)
    (delivery,) = api.get(f"{target}/deliveries").json()
    assert (delivery["next_attempt"] is None) is (state in {"done", "failed", "dropped"})


def test_webhooks_of_others_are_not_found(api: Api, other: Api) -> None:
    added = add(api)
    target = f"/webhooks/{added['id']}"
    message = api.post(f"{target}/test").json()["id"]
    before = api.get(f"{target}/deliveries").json()
    requests = [
        ("GET", target, ...),
        ("PATCH", target, {"disabled": True}),
        ("PATCH", target, {}),
        ("DELETE", target, ...),
        ("POST", f"{target}/test", ...),
        ("POST", f"{target}/rotate", ...),
        ("GET", f"{target}/deliveries", ...),
        ("POST", f"{target}/deliveries/{message}/redeliver", ...),
        ("GET", "/webhooks/0", ...),
        ("GET", f"/webhooks/{2**40}", ...),
    ]
    for method, path, body in requests:
        reply = other.send(method, path, json=body)
        assert (reply.status, reply.detail) == (404, "Webhook not found"), (method, path)
    assert other.get("/webhooks").json() == []
    assert api.get(target).json() == {k: v for k, v in added.items() if k != "secret"}
    assert api.get(f"{target}/deliveries").json() == before
    reply = api.post(f"{target}/deliveries/msg_none/redeliver")
    assert (reply.status, reply.detail) == (404, "Delivery not found")


def test_without_a_token_there_are_no_webhooks(anybody: Api) -> None:
    assert anybody.get("/webhooks").status == 401
    assert anybody.post("/webhooks", json={"url": URL}).status == 401


def test_changes_are_in_the_audit_trail(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    name = fresh("request")
    reply = api.post("/webhooks", json={"url": URL}, headers={"X-Request-ID": name})
    written = capfd.readouterr().out
    line = audited(written, "add_webhook", name)
    assert f"target=webhooks/{reply.json()['id']}" in line
    assert reply.json()["secret"] not in written


# -- what is written about jobs -------------------------------------------------------------------


def messages(api: Api, webhook: dict[str, Any]) -> list[tuple[str, Any]]:
    """Type and data of the messages to a webhook, oldest first."""
    statement = "SELECT payload FROM webhook_deliveries WHERE webhook_id = :id ORDER BY id"
    bodies = [json.loads(row[0]) for row in rows(api.gateway, statement, id=webhook["id"])]
    return [(body["type"], body["data"]) for body in bodies]


def test_messages_hold_the_job_as_it_is_described(api: Api) -> None:
    ended, every = add(api), add(api, events=["status", "finished"])
    job = api.new_job(hardware={"memory": 4})
    described = {"queued": api.get(f"/jobs/{job['id']}").json()}
    for status in ("pulled", "running", "finished"):
        assert api.report(job["id"], status, f"in {status}").status in {200, 204}
        described[status] = api.get(f"/jobs/{job['id']}").json()
    assert messages(api, ended) == [("job.finished", described["finished"])]
    assert messages(api, every) == [
        ("job.status", described["queued"]),
        ("job.status", described["pulled"]),
        ("job.status", described["running"]),
        ("job.status", described["finished"]),
        ("job.finished", described["finished"]),
    ]


def test_a_cancellation_is_a_message_of_its_own(api: Api) -> None:
    failed, cancelled = add(api), add(api, events=["cancelled"])
    every = add(api, events=["status"])
    job = api.new_job()
    api.post(f"/jobs/{job['id']}/cancel")
    described = api.get(f"/jobs/{job['id']}").json()
    assert described["status"] == "error"
    assert messages(api, failed) == []
    assert messages(api, cancelled) == [("job.cancelled", described)]
    assert messages(api, every)[1:] == [("job.status", described)]


def test_keep_alives_and_texts_are_no_messages(api: Api) -> None:
    every = add(api, events=["status"])
    job = api.new_job()
    for details in (None, "epoch 1", "epoch 2"):
        api.report(job["id"], "running", details)
    assert [data["status"] for _, data in messages(api, every)] == ["queued", "running"]


def test_jobs_of_others_are_no_messages(api: Api, other: Api) -> None:
    hook = add(other, events=["status"])
    api.report(api.new_job()["id"], "finished")
    assert messages(other, hook) == []
