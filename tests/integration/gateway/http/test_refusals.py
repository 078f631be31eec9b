"""Wrong tokens in great number, and the audit trail."""

import time
from itertools import count

import pytest

from devtools.user_pool import Issuer
from gateway.http import refusals
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Gateway, Reply, audited, fresh

_HOSTS = count(1)


def ask(gateway: Gateway, token: str | None, address: str) -> Reply:
    return Api(gateway, token=token).get("/user", headers={"X-Forwarded-For": address})


@pytest.fixture
def strict(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """A gateway that takes five wrong tokens a minute from an address."""
    monkeypatch.setattr(refusals, "WRONG_TOKENS", 5)
    return start_gateway()


def test_an_address_with_too_many_wrong_tokens_is_asked_to_pause(
    strict: Gateway, issuer: Issuer
) -> None:
    forged, here = Issuer(issuer.kid).token("somebody"), "198.51.100.1"
    replies = [ask(strict, token, here) for token in (forged, "x") * 4]
    assert [reply.status for reply in replies] == [401] * 5 + [429] * 3
    last = replies[-1]
    assert last.detail == "Limit exceeded: 5 wrong tokens in 60 s"
    assert 0 < int(last.headers["retry-after"]) <= 60
    assert ask(strict, forged, "198.51.100.2").status == 401


def test_valid_expired_and_missing_tokens_are_answered_as_ever_at_such_an_address(
    strict: Gateway, issuer: Issuer
) -> None:
    here, expired = "198.51.100.3", issuer.token("somebody", exp=int(time.time()) - 60)
    for _ in range(20):
        assert ask(strict, expired, here).status == 401
        assert ask(strict, None, here).status == 401
    while ask(strict, "x", here).status != 429:
        pass
    assert ask(strict, issuer.token(fresh("user")), here).status == 200
    assert ask(strict, expired, here).status == 401
    assert ask(strict, None, here).status == 401


def test_a_wrong_internal_key_is_never_answered_429(strict: Gateway) -> None:
    for _ in range(20):
        reply = Api(strict).put("/_job_status", json={}, headers={"x-api-key": "wrong"})
        assert (reply.status, reply.detail) == (401, "unauthorized")


# -- the audit trail -----------------------------------------------------------------------------


@pytest.fixture
def address() -> str:
    """One that no other test has."""
    return f"192.0.2.{next(_HOSTS)}"


def test_deletions_are_in_the_audit_trail(
    api: Api, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    api.plant("data/x/f.csv")
    job_id = api.new_job()["id"]
    for target, action in (("files/data/x/f.csv", "delete_file"), (f"jobs/{job_id}", "delete_job")):
        reply = api.delete(f"/{target}", headers={"X-Forwarded-For": address})
        assert reply.status == 204
        line = audited(capfd.readouterr().out, action, reply.headers["x-request-id"])
        for part in ("outcome=ok", f"user_id={api.user}", f"address={address}", f"target={target}"):
            assert f"{part} " in f"{line} ", part


def test_what_is_not_there_is_not_deleted(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    assert api.delete("/jobs/999999999").status == 404
    assert "delete_job" not in capfd.readouterr().out


def test_denials_are_in_the_audit_trail_and_repetitions_are_counted(
    gateway: Gateway, issuer: Issuer, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    outsider = fresh("outsider")
    api = Api(gateway, token=issuer.token(outsider, cognito__groups=[]))
    replies = [api.get("/jobs", headers={"X-Forwarded-For": address}) for _ in range(20)]
    assert {reply.status for reply in replies} == {403}
    written = capfd.readouterr().out
    line = audited(written, "access", replies[0].headers["x-request-id"])
    for part in ("outcome=denied", f"user_id={outsider}", f"address={address}", "'GET /jobs'"):
        assert part in line
    denied = [line for line in written.splitlines() if "outcome=denied" in line]
    assert sum(outsider in line for line in denied) == 1


def test_the_request_log_names_a_denied_user(
    start_gateway: StartGateway, issuer: Issuer, capfd: pytest.CaptureFixture[str]
) -> None:
    outsider, gateway = fresh("outsider"), start_gateway()  # others' refusals may be too many
    Api(gateway, token=issuer.token(outsider, cognito__groups=[])).get("/jobs")
    lines = [line for line in capfd.readouterr().out.splitlines() if "request.answered" in line]
    assert f"user_id={outsider}" in lines[-1]
