import pytest

from common.outbox.peer_client import Lost, Reply, Unreachable
from dispatcher.worker_api import MAX_RETRY_AFTER, MAX_WORDS, Verdict, outcome_of, words_of

JSON = "application/json"


def reply(status: int, body: bytes = b"{}", content_type: str = JSON) -> Reply:
    return Reply(status, content_type, body)


RESULTS = {
    Verdict.TAKEN: [
        reply(201, b'{"job": {}}'),
        reply(200, b'"taken"'),
        reply(201, b'{"job": {}}', "text/plain"),
        reply(200, b"[]", ""),
    ],
    Verdict.REFUSED: [*map(reply, (400, 409, 422)), reply(413, b"<html>", "text/html")],
    Verdict.NOT_TAKEN: [
        *map(reply, (408, 425, 429, 500, 503)),
        Unreachable("ConnectionRefusedError"),
    ],
    Verdict.IN_DOUBT: [
        *map(reply, (502, 504)),
        reply(201, b'{"job"'),
        reply(201, b""),
        Lost("ServerDisconnectedError"),
        Lost("no answer within 30 s", timed_out=True),
    ],
    Verdict.HELD: [
        *map(reply, (301, 307, 401, 403, 404, 405, 418, 501)),
        reply(200, b"<!doctype html>", "text/html"),
        reply(204, b"", ""),
    ],
}


@pytest.mark.parametrize("verdict", RESULTS)
def test_every_result_of_a_call_has_one_meaning(verdict: Verdict) -> None:
    for result in RESULTS[verdict]:
        assert outcome_of(result).verdict is verdict, result


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
