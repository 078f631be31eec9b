import orjson
import pytest

from common.outbox.peer_client import CallResult, Lost, Reply, Unreachable
from notifier.mailjet import Verdict, outcomes_of, was_found

IDS = ["a", "b"]


def reply(status: int, body: object = None, content_type: str = "application/json") -> Reply:
    return Reply(status, content_type, b"" if body is None else orjson.dumps(body))


def error(status: object) -> dict[str, object]:
    return {"Status": "error", "Errors": [{"StatusCode": status, "ErrorMessage": "no"}]}


SUCCESS = {"Status": "success"}


def sent(*results: object, status: int = 200) -> Reply:
    """Mailjet's answer with a result for each message."""
    return reply(status, {"Messages": results})


@pytest.mark.parametrize(
    ("result", "verdicts"),
    [
        (sent(SUCCESS, SUCCESS), [Verdict.SENT, Verdict.SENT]),
        (sent(SUCCESS, error(400), status=400), [Verdict.SENT, Verdict.FAILED]),
        (sent(error(429), error(500)), [Verdict.NOT_TAKEN] * 2),
        (sent(error(401), SUCCESS, status=400), [Verdict.HELD, Verdict.SENT]),
        (sent(SUCCESS), [Verdict.IN_DOUBT] * 2),
        (
            sent({**SUCCESS, "CustomID": "b"}, {**error(400), "CustomID": "a"}),
            [Verdict.FAILED, Verdict.SENT],
        ),
        # each of another's name is nobody's at its place
        (sent({**SUCCESS, "CustomID": "b"}, error(400)), [Verdict.IN_DOUBT, Verdict.SENT]),
        (
            sent({**SUCCESS, "CustomID": "b"}, {**SUCCESS, "CustomID": "c"}),
            [Verdict.IN_DOUBT, Verdict.SENT],
        ),
        (sent({**SUCCESS, "CustomID": ""}, error(400)), [Verdict.SENT, Verdict.FAILED]),
        (sent("odd", {"Status": "odd"}), [Verdict.IN_DOUBT] * 2),
        (sent({**SUCCESS, "CustomID": ["a"]}, error([400])), [Verdict.SENT, Verdict.FAILED]),
        (reply(200, {}), [Verdict.IN_DOUBT] * 2),
        (reply(200, None, "text/html"), [Verdict.HELD] * 2),
        (reply(400, {"ErrorMessage": "malformed"}), [Verdict.ALONE] * 2),
        (reply(413), [Verdict.ALONE] * 2),
        *((reply(status), [Verdict.HELD] * 2) for status in (302, 401, 403, 404)),
        *((reply(status), [Verdict.NOT_TAKEN] * 2) for status in (429, 500, 503)),
        *((reply(status), [Verdict.IN_DOUBT] * 2) for status in (502, 504)),
        (Unreachable("refused"), [Verdict.NOT_TAKEN] * 2),
        (Lost("reset"), [Verdict.IN_DOUBT] * 2),
    ],
)
def test_every_mail_of_a_batch_gets_its_verdict(
    result: CallResult, verdicts: list[Verdict]
) -> None:
    assert [outcome.verdict for outcome in outcomes_of(result, IDS)] == verdicts


def test_a_single_mail_that_is_refused_fails_with_mailjets_words() -> None:
    (outcome,) = outcomes_of(reply(400, {"ErrorMessage": "malformed"}), ["a"])
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, "malformed")


def test_mailjets_words_hold_no_control_characters() -> None:
    fault = {"StatusCode": 400, "ErrorMessage": "no\x00such\x1b address\n\tat all"}
    mails = {"Messages": [{"Status": "error", "Errors": [fault]}]}
    (single,) = outcomes_of(reply(400, mails), ["a"])
    (whole,) = outcomes_of(reply(400, fault), ["a"])
    assert single.reason == whole.reason == "nosuch address\n\tat all"


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (reply(200, {"Count": 1, "Data": [{}]}), True),
        (reply(200, {"Count": 0, "Data": []}), False),
        (reply(404, {}), False),
        (reply(200, {}), None),
        (reply(401), None),
        (reply(500), None),
        (Lost("reset"), None),
        (Unreachable("refused"), None),
    ],
)
def test_a_look_up_finds_a_mail_or_not_or_has_no_reliable_answer(
    result: CallResult, found: bool | None
) -> None:
    assert was_found(result) is found
