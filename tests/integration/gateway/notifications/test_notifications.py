"""Choices over HTTP, links that stop mails, and Mailjet's events."""

import re
from collections.abc import Callable

import pytest

from common.notifications.links import UnsubscribeLinks
from devtools.user_pool import INTERNAL_KEY, Issuer
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Gateway, fresh, on_both_databases, rows

TARGET = "/user/notifications"
LINK = "/notifications/unsubscribe?t="
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


def choice_of(api: Api) -> str:
    reply = api.get(TARGET)
    assert reply.status == 200, reply
    (item,) = reply.json().items()
    assert item[0] == "mail"
    return str(item[1])


def token_of(api: Api, key: str = INTERNAL_KEY) -> str:
    return UnsubscribeLinks([key]).token(api.user)


@on_both_databases
def test_every_user_has_a_choice_which_is_all_at_first(api: Api, other: Api) -> None:
    assert choice_of(api) == "all"
    for choice in ("errors", "none", "last", "all", "errors"):
        reply = api.put(TARGET, json={"mail": choice})
        assert (reply.status, reply.json()) == (200, {"mail": choice})
        assert choice_of(api) == choice
    assert choice_of(other) == "all"


@pytest.mark.parametrize("choice", ["", "ALL", "some", None, 1, ["all"]])
def test_a_choice_that_there_is_not_is_refused_naming_those_that_there_are(
    api: Api, choice: object
) -> None:
    reply = api.put(TARGET, json={"mail": choice})
    assert reply.faults() == {(("body", "mail"), "enum")}
    assert "'all', 'errors', 'none' or 'last'" in reply.detail[0]["msg"]
    assert api.put(TARGET, json={}).faults() == {(("body", "mail"), "missing")}


def test_choices_need_a_user(anybody: Api) -> None:
    assert [anybody.get(TARGET).status, anybody.put(TARGET, json={"mail": "all"}).status] == [
        401
    ] * 2


@on_both_databases
@pytest.mark.parametrize("notify", ["all", "errors", "none", None, ""])
def test_a_submission_chooses_for_its_job(api: Api, notify: str | None) -> None:
    job = api.new_job(notify=notify)
    assert "notify" not in job
    ((stored,),) = rows(api.gateway, "SELECT notify FROM jobs WHERE id = :id", id=job["id"])
    assert stored == (notify or None)
    assert "notify" not in api.get(f"/jobs/{job['id']}").json()


@pytest.mark.parametrize("notify", ["last", "ERRORS", 1, {}])
def test_a_submission_cannot_choose_anything_else(api: Api, notify: object) -> None:
    reply = api.submit(attributes={"files_down": {}}, notify=notify)
    assert reply.faults() == {(("body", "notify"), "enum")}


@on_both_databases
@pytest.mark.parametrize(
    ("choice", "notify", "mails"),
    [("none", None, 0), ("errors", None, 0), ("errors", "all", 1), ("all", "none", 0)],
)
def test_a_job_that_ends_causes_the_mails_that_were_chosen(
    api: Api, choice: str, notify: str | None, mails: int
) -> None:
    api.put(TARGET, json={"mail": choice})
    job = api.new_job(notify=notify)
    assert api.report(job["id"], "finished").status == 200
    written = rows(api.gateway, "SELECT id FROM emails WHERE job_id = :id", id=job["id"])
    assert len(written) == mails


# -- links --------------------------------------------------------------------------------------


@on_both_databases
def test_a_link_stops_the_mails_of_its_user_without_a_log_in(
    api: Api, other: Api, anybody: Api
) -> None:
    link = LINK + token_of(api)
    reply = anybody.post(link, form=ONE_CLICK)
    assert reply.status == 200
    assert (choice_of(api), choice_of(other)) == ("none", "all")
    assert anybody.post(link).status == 200  # again, and without a body
    api.put(TARGET, json={"mail": "all"})
    assert anybody.post(link, form=ONE_CLICK).status == 200  # a mail that is years old still works
    assert choice_of(api) == "none"


def test_opening_a_link_shows_a_button_and_changes_nothing(api: Api, anybody: Api) -> None:
    for _ in range(2):  # a scanner, and a reader
        reply = anybody.get(LINK + token_of(api))
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/html")
        assert '<form method="post"><button>' in reply.text
    assert choice_of(api) == "all"
    assert api.user not in reply.text


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_page_runs_nothing_and_keeps_the_link_to_itself(
    api: Api, anybody: Api, method: str
) -> None:
    headers = anybody.send(method, LINK + token_of(api)).headers
    policy = headers["content-security-policy"]
    for part in ("default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"):
        assert part in policy
    assert "script" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "set-cookie" not in headers


def damaged(token: str) -> list[str]:
    other = "B" if token[40] == "A" else "A"
    changed = f"{token[:40]}{other}{token[41:]}"
    return ["", "t", token[:-1], token[1:], f"{token}A", token.swapcase(), changed]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_forged_or_damaged_link_is_refused_and_changes_nothing(
    api: Api, anybody: Api, method: str
) -> None:
    wrong = [token_of(api, "another key"), "%00", "%FF", api.user, *damaged(token_of(api))]
    for token in wrong:
        reply = anybody.send(method, LINK + token)
        assert (reply.status, reply.detail) == (
            400, "This link is not one of ours, or it is damaged"
        )  # fmt: skip
    assert anybody.send(method, "/notifications/unsubscribe").status == 400
    assert choice_of(api) == "all"


def test_the_log_names_who_changed_a_choice_and_no_link(
    api: Api, anybody: Api, capfd: pytest.CaptureFixture[str]
) -> None:
    token = token_of(api)
    anybody.post(LINK + token)
    written = "".join(capfd.readouterr())
    assert re.search(rf"notifications\.changed.*by=link.*user_id={api.user}", written)
    assert token not in written


def test_keys_of_links_are_replaced_one_after_the_other(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = start_gateway(NOTIFICATION_KEYS="the new key of 2026, the old key of 2025")
    user = fresh("user")
    api = Api(gateway, user, issuer.token(user))
    for key, status in {
        "the new key of 2026": 200, "the old key of 2025": 200, INTERNAL_KEY: 400,
    }.items():  # fmt: skip
        assert Api(gateway).post(LINK + token_of(api, key)).status == status


# -- Mailjet's events ---------------------------------------------------------------------------

TOKEN = "a token that was agreed with Mailjet"
EVENTS = f"/notifications/mailjet?t={TOKEN.replace(' ', '%20')}"


@pytest.fixture
def mailed(start_gateway: StartGateway, issuer: Issuer) -> Callable[[], Api]:
    gateway = start_gateway(EMAIL_SENDER_EVENT_TOKEN=TOKEN)

    def make() -> Api:
        user = fresh("user")
        return Api(gateway, user, issuer.token(user))

    return make


def suppressed(api: Api) -> list[str]:
    return [row[0] for row in rows(api.gateway, "SELECT address FROM suppressed_addresses")]


def bounce(address: str, **item: object) -> dict[str, object]:
    return {
        "event": "bounce",
        "email": address,
        "hard_bounce": True,
        "error": "user unknown",
        **item,
    }


def test_an_address_that_bounces_gets_no_more_mails_until_its_owner_wants_them(
    mailed: Callable[[], Api],
) -> None:
    api = mailed()
    job = api.new_job()
    api.report(job["id"], "finished")
    ((custom_id, address),) = rows(api.gateway, "SELECT custom_id, recipient FROM emails")
    reply = Api(api.gateway).post(EVENTS, json=bounce(address.upper(), CustomID=custom_id))
    assert (reply.status, reply.body) == (200, b"")
    assert suppressed(api) == [address]
    assert rows(api.gateway, "SELECT last_error FROM emails") == [
        ("bounced for good (user unknown)",)
    ]
    api.put(TARGET, json={"mail": "none"})
    assert suppressed(api) == [address]
    api.put(TARGET, json={"mail": "all"})
    assert suppressed(api) == []


def test_mailjet_may_send_many_events_at_once_and_again(mailed: Callable[[], Api]) -> None:
    api = mailed()
    events = [bounce("a@x.org"), bounce("b@x.org", hard_bounce=False), {"event": "open"}, 3]
    for _ in range(2):
        assert Api(api.gateway).post(EVENTS, json=events).status == 200
    assert suppressed(api) == ["a@x.org"]


@pytest.mark.parametrize("query", ["", "?t=", "?t=wrong", "?t=%FF"])
def test_events_of_others_are_refused(mailed: Callable[[], Api], query: str) -> None:
    api = mailed()
    reply = Api(api.gateway).post(f"/notifications/mailjet{query}", json=bounce("a@x.org"))
    assert reply.status == 403
    assert suppressed(api) == []


def test_events_that_are_no_json_are_refused(mailed: Callable[[], Api]) -> None:
    reply = Api(mailed().gateway).post(EVENTS, body=b"{")
    assert (reply.status, reply.detail) == (400, "The events are no JSON")


def test_without_a_token_there_is_no_such_endpoint(gateway: Gateway) -> None:
    request = b"POST /notifications/mailjet?t= HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    reply = gateway.raw(request)
    assert (reply.status, reply.detail) == (404, "Not Found")
