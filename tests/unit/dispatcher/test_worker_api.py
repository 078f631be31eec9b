import pytest

from common.outbox.peer_client import CallResult, Lost, Reply, Unreachable
from dispatcher.worker_api import MAX_RETRY_AFTER, MAX_WORDS, Verdict, outcome_of, words_of

JSON = "application/json"


def reply(status: int, body: bytes = b"{}", content_type: str = JSON) -> Reply:
    return Reply(status, content_type, body)


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (reply(201, b'{"job": {}}'), Verdict.TAKEN),
        (reply(200, b'{"job": {}}'), Verdict.TAKEN),
        (reply(201, b'"taken"'), Verdict.TAKEN),
        (reply(201, b'{"job": {}}', "text/plain"), Verdict.TAKEN),
        (reply(202, b'"taken"', "text/plain"), Verdict.TAKEN),
        (reply(200, b"[]", ""), Verdict.TAKEN),
        (reply(201, b'{"job"'), Verdict.IN_DOUBT),
        (reply(201, b""), Verdict.IN_DOUBT),
        (reply(200, b"<!doctype html>", "text/html"), Verdict.HELD),
        (reply(204, b"", ""), Verdict.HELD),
        (reply(400), Verdict.REFUSED),
        (reply(409), Verdict.REFUSED),
        (reply(413, b"<html>", "text/html"), Verdict.REFUSED),
        (reply(422), Verdict.REFUSED),
        (reply(408), Verdict.NOT_TAKEN),
        (reply(425), Verdict.NOT_TAKEN),
        (reply(429), Verdict.NOT_TAKEN),
        (reply(500), Verdict.NOT_TAKEN),
        (reply(503), Verdict.NOT_TAKEN),
        (reply(502), Verdict.IN_DOUBT),
        (reply(504), Verdict.IN_DOUBT),
        (reply(401), Verdict.HELD),
        (reply(403), Verdict.HELD),
        (reply(404), Verdict.HELD),
        (reply(405), Verdict.HELD),
        (reply(301), Verdict.HELD),
        (reply(307), Verdict.HELD),
        (reply(418), Verdict.HELD),
        (reply(501), Verdict.HELD),
        (Unreachable("ConnectionRefusedError"), Verdict.NOT_TAKEN),
        (Lost("ServerDisconnectedError"), Verdict.IN_DOUBT),
        (Lost("no answer within 30 s", timed_out=True), Verdict.IN_DOUBT),
    ],
)
def test_every_result_of_a_call_has_one_meaning(result: CallResult, verdict: Verdict) -> None:
    assert outcome_of(result).verdict is verdict


def test_a_peer_that_asks_for_a_long_pause_is_called_again_within_a_minute() -> None:
    busy = Reply(503, JSON, b"{}", retry_after=60.0)
    assert outcome_of(busy).retry_after == MAX_RETRY_AFTER < 60.0
    assert outcome_of(Reply(503, JSON, b"{}", retry_after=2.0)).retry_after == 2.0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(422, b'{"detail": "no such image"}'), "no such image"),
        (
            reply(422, b'{"detail": [{"loc": ["body", "job"], "msg": "Field required"}]}'),
            "body.job: Field required",
        ),
        (reply(400, b"plain words", "text/plain"), "plain words"),
        (reply(413, b"<html>too large</html>", "text/html"), "HTTP 413"),
        (reply(400, b"<html>", "text/plain"), "HTTP 400"),
        (reply(400, b"", ""), "HTTP 400"),
        (reply(400, b'{"detail": "a\\u0000b"}'), "ab"),
    ],
)
def test_the_peers_words_become_plain_text(answer: Reply, words: str) -> None:
    assert words_of(answer) == words


def test_the_peers_words_are_cut_to_a_bounded_length() -> None:
    words = words_of(reply(400, b'{"detail": "' + b"x" * 10_000 + b'"}'))
    assert len(words) == MAX_WORDS
