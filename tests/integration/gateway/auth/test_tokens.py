"""Who is let in: every rule about ID tokens, the cookie, and the pool's keys."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from prometheus_client import REGISTRY

from devtools.user_pool import CLIENT, Issuer
from devtools.waiting import eventually
from gateway.auth import keys
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import FRONTEND, Api, Gateway, Reply, fresh
from tests.support.key_server import KeyServer

ADDRESSES = (f"203.0.113.{number}" for number in itertools.count(1))
"""Each of one test alone, since the log counts what it has shown already."""

Judge = Callable[..., tuple[int, str]]

VALID = (200, "")
MISSING = (401, "Not authenticated")
WRONG = (401, "Not verified")
NOT_A_MEMBER = (403, "Not a member of the 'users' group")
NO_DIRECTORY = (403, "This user name cannot be the name of a directory")


def ask(gateway: Gateway, token: str, scheme: str = "Bearer ") -> Reply:
    return Api(gateway).get("/user", headers={"Authorization": f"{scheme}{token}"})


def verdict(reply: Reply) -> tuple[int, str]:
    if reply.status == 401:
        assert reply.headers["www-authenticate"].partition(" ")[0] == "Bearer"
    return reply.status, reply.json().get("detail", "")


@pytest.fixture
def judge(gateway: Gateway, issuer: Issuer) -> Judge:
    """The answer to a token of `somebody` with some claims changed."""
    return lambda **changes: verdict(ask(gateway, issuer.token("somebody", **changes)))


def b64(data: Any) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(issuer: Issuer, head: Any, claims: Any) -> str:
    """A token of any head and body, with a good signature."""
    message = f"{b64(head)}.{b64(claims)}"
    signature = issuer.key.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{message}.{b64(signature)}"


def test_a_valid_token_names_its_user(gateway: Gateway, issuer: Issuer) -> None:
    groups = ["users", "cloud"]
    token = issuer.token("somebody", email="me@example.com", cognito__groups=groups)
    assert ask(gateway, token).json() == {"email": "me@example.com", "groups": groups}


@pytest.mark.parametrize("scheme", ["bearer ", "BEARER ", "Bearer   "])
def test_the_scheme_may_be_spelled_in_any_way(
    gateway: Gateway, issuer: Issuer, scheme: str
) -> None:
    assert ask(gateway, f"{issuer.token('somebody')}  ", scheme).status == 200


@pytest.mark.parametrize(
    "value",
    [
        "", "Bearer", "Bearer ", "Basic dTpw", "nonsense", "Bearer x", "Bearer a.b", "Bearer a.b.c",
        "Bearer ..", "Bearer a.b.c.d", "Bearer é.ü.x", "Bearer " + "a" * 8000, "Token x",
        "Bearer " + "a" * 20_000,
    ],
    ids=lambda value: value[:12],
)  # fmt: skip
def test_anything_but_a_token_is_not_authenticated(gateway: Gateway, value: str) -> None:
    assert verdict(ask(gateway, value, scheme="")) == MISSING


@pytest.mark.parametrize("part", [[], b"junk", 3, None, b"[" * 3000], ids=lambda b: str(b)[:9])
def test_a_token_with_a_malformed_part_is_not_authenticated(
    gateway: Gateway, issuer: Issuer, part: Any
) -> None:
    head = {"alg": "RS256", "kid": issuer.kid}
    for token in (signed(issuer, part, {}), signed(issuer, head, part)):
        assert verdict(ask(gateway, token)) == MISSING


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": ...}, {"aud": ...}, {"exp": ...}, {"token_use": ...}, {"cognito__username": ...},
        {"iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Other"},
        {"iss": "https://example.com"}, {"aud": "another-client"}, {"aud": ["another-client"]},
        {"aud": 3}, {"aud": None}, {"token_use": "access"}, {"token_use": ["id"]},
        {"exp": "soon"}, {"exp": None}, {"exp": []}, {"exp": float("nan")}, {"nbf": "x"},
        {"iat": "x"}, {"iat": []}, {"cognito__username": 3}, {"cognito__username": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_token_with_a_wrong_claim_is_refused(judge: Judge, changes: dict[str, Any]) -> None:
    assert judge(**changes) == WRONG


@pytest.mark.parametrize(
    ("claim", "seconds", "answer"),
    [
        ("exp", -7, VALID), ("exp", -12, WRONG), ("nbf", 8, VALID), ("nbf", 15, WRONG),
        ("iat", 8, VALID), ("iat", 15, WRONG),
    ],
)  # fmt: skip
def test_ten_seconds_of_clock_difference_are_tolerated(
    judge: Judge,
    claim: str,
    seconds: int,
    answer: tuple[int, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = datetime.now(UTC)

    class Standing(datetime):
        """A clock that stands still, however long the request takes."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return moment

    monkeypatch.setattr("jwt.api_jwt.datetime", Standing)
    assert judge(**{claim: int(moment.timestamp()) + seconds}) == answer


@pytest.mark.parametrize(
    "changes", [{"sub": 3}, {"jti": 3}, {"auth_time": 3}, {"custom": 3}, {"iat": ...}], ids=str
)
def test_claims_that_are_not_read_may_be_anything(judge: Judge, changes: dict[str, Any]) -> None:
    assert judge(**changes) == VALID


def test_only_rs256_with_the_pools_own_key_holds(gateway: Gateway, issuer: Issuer) -> None:
    claims = issuer.claims("somebody")
    public = issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    confused = f"{b64({'alg': 'HS256', 'kid': issuer.kid})}.{b64(claims)}"
    confused += "." + b64(hmac.new(public, confused.encode(), hashlib.sha256).digest())
    good = issuer.sign(claims)
    head, _, signature = good.split(".")
    stranger = Issuer(issuer.kid)
    for forged in (
        jwt.encode(claims, None, "none", headers={"kid": issuer.kid}),
        f"{b64({'alg': 'none', 'kid': issuer.kid})}.{b64(claims)}.{signature}",
        confused,
        jwt.encode(claims, issuer.key, "RS512", headers={"kid": issuer.kid}),
        jwt.encode(claims, issuer.key, "PS256", headers={"kid": issuer.kid}),
        stranger.sign(claims),
        signed(issuer, {"alg": "RS256"}, claims),
        signed(issuer, {"alg": "RS256", "kid": 3}, claims),
        signed(issuer, {"alg": "RS256", "kid": issuer.kid, "crit": ["x"], "x": 1}, claims),
        signed(stranger, {"alg": "RS256", "kid": "own", "jwk": stranger.jwk}, claims),
        f"{head}.{b64({**claims, 'cognito:username': 'victim'})}.{signature}",
        f"{head}.{b64(claims)}.",
    ):
        assert verdict(ask(gateway, forged)) == WRONG, forged
    assert ask(gateway, good).status == 200


@pytest.mark.parametrize(
    "groups",
    [..., None, [], ["workers", "cloud"], "users", {"users": 1}, [["users"]], 3, ["us\0ers"]],
    ids=ascii,
)
def test_only_members_of_the_users_group_are_let_in(judge: Judge, groups: Any) -> None:
    assert judge(cognito__groups=groups) == NOT_A_MEMBER


def test_odd_groups_beside_the_users_do_no_harm(gateway: Gateway, issuer: Issuer) -> None:
    token = issuer.token("somebody", cognito__groups=[1, "users", "\ud800"])
    assert ask(gateway, token).json()["groups"] == ["1", "users", "?"]


@pytest.mark.parametrize(
    "email", [..., None, 3, "", "a@b.c\nBcc: d@e.f", "a@b.c\r", "a\0@b.c", "a@b.c\x85"], ids=ascii
)
def test_a_user_may_have_no_email(gateway: Gateway, issuer: Issuer, email: Any) -> None:
    token = issuer.token("somebody", email=email)
    assert ask(gateway, token).json() == {"email": None, "groups": ["users"]}


@pytest.mark.parametrize(
    ("claims", "mailed_by_default", "mailed_otherwise"),
    [
        ({"email_verified": True}, True, True), ({}, True, True),
        ({"email_verified": False}, True, False), ({"email_verified": "false"}, True, False),
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_stops_mails_to_addresses_that_are_not_verified(
    gateway: Gateway,
    start_gateway: StartGateway,
    issuer: Issuer,
    claims: dict[str, Any],
    mailed_by_default: bool,
    mailed_otherwise: bool,
) -> None:
    careful = start_gateway(EMAIL_UNVERIFIED="false")
    for served, mailed in ((gateway, mailed_by_default), (careful, mailed_otherwise)):
        token = issuer.token("somebody", email="me@example.com", **claims)
        api = Api(served, "somebody", token)
        assert api.new_job()["user_email"] == ("me@example.com" if mailed else None)
        assert api.get("/user").json()["email"] == "me@example.com"


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "a/b", "../other", "./other", "other/data", "/etc", "a\0b", "a\nb", "\x7f",
        "\x85", "u" * 256, "ü" * 128, "\ud800", ".opencloud-staging",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_name_that_cannot_be_a_directory_is_forbidden(
    gateway: Gateway, issuer: Issuer, name: str
) -> None:
    token = issuer.token(name)
    assert verdict(ask(gateway, token)) == NO_DIRECTORY
    before = sorted(path.name for path in gateway.root.glob("*"))
    Api(gateway, token=token).post("/files/data/x/")
    assert sorted(path.name for path in gateway.root.glob("*")) == before


@pytest.mark.parametrize(
    "name", ["u" * 255, "ü" * 127, "a b", "<b>", "a\\b", "*", "~", "name@x.example", "...", "-rf"]
)
def test_any_other_name_is_the_directory_verbatim(
    gateway: Gateway, issuer: Issuer, name: str
) -> None:
    api = Api(gateway, name, issuer.token(name))
    assert api.upload("data/", "f.txt", b"mine").status == 201
    assert (gateway.root / name / "data" / "f.txt").read_bytes() == b"mine"


# -- the challenge --------------------------------------------------------------------------------


def challenge(gateway: Gateway, authorization: str) -> str:
    reply = Api(gateway).get("/user", headers={"Authorization": authorization})
    assert reply.status == 401
    return reply.headers["www-authenticate"]


@pytest.mark.parametrize("sent", ["", "Basic dTpw", "Bearer", "Bearer "])
def test_where_no_token_is_sent_the_challenge_names_no_error(gateway: Gateway, sent: str) -> None:
    assert challenge(gateway, sent) == "Bearer"


def test_the_challenge_tells_an_expired_token_apart(gateway: Gateway, issuer: Issuer) -> None:
    expired, foreign = issuer.token("somebody", exp=1), issuer.token("somebody", aud="another")
    for token, description in (
        (expired, "The token has expired"),
        (foreign, "The token does not hold"),
        ("x", "The token is malformed"),
    ):
        stated = f'Bearer error="invalid_token", error_description="{description}"'
        assert challenge(gateway, f"Bearer {token}") == stated
    headers = {"Authorization": f"Bearer {expired}", "Origin": FRONTEND}
    exposed = Api(gateway).get("/user", headers=headers).headers["access-control-expose-headers"]
    assert "WWW-Authenticate" in exposed.split(", ")


# -- the cookie -----------------------------------------------------------------------------------


@pytest.fixture
def token(issuer: Issuer) -> str:
    return issuer.token(fresh("user"))


@pytest.mark.parametrize(
    "form",
    [
        'Authorization="Bearer {}"', "Authorization=Bearer {}",
        'a=b; Authorization="Bearer {}"; c=d', 'odd={{"x": 1}}; Authorization=Bearer {}',
    ],
)  # fmt: skip
def test_the_cookie_stands_in_for_the_header(gateway: Gateway, token: str, form: str) -> None:
    assert Api(gateway).get("/user", headers={"Cookie": form.format(token)}).status == 200


@pytest.mark.parametrize("header", ["", "Bearer x", "Basic dTpw"])
def test_the_header_wins_over_the_cookie_even_when_it_is_bad(
    gateway: Gateway, token: str, header: str
) -> None:
    sent = {"Cookie": f"Authorization=Bearer {token}", "Authorization": header}
    assert verdict(Api(gateway).get("/user", headers=sent)) == MISSING


@pytest.mark.parametrize("cookie", ["Authorization={}", "authorization=Bearer {}", "other={}"])
def test_other_cookies_do_not_count(gateway: Gateway, token: str, cookie: str) -> None:
    reply = Api(gateway).get("/user", headers={"Cookie": cookie.format(token)})
    assert verdict(reply) == MISSING


@pytest.mark.parametrize(
    ("origin", "status"),
    [(FRONTEND, 201), (None, 403), ("http://evil.example", 403), ("null", 403)],
)
def test_a_change_by_cookie_needs_the_front_ends_origin(
    gateway: Gateway, token: str, origin: str | None, status: int
) -> None:
    headers = {"Cookie": f"Authorization=Bearer {token}"}
    if origin:
        headers["Origin"] = origin
    assert Api(gateway).post("/files/data/x/", headers=headers).status == status
    assert Api(gateway).get("/user", headers=headers).status == 200


def test_a_change_by_header_needs_no_origin(gateway: Gateway, token: str) -> None:
    headers = {"Origin": "http://evil.example"}
    assert Api(gateway, token=token).post("/files/data/x/", headers=headers).status == 201


# -- the pool's keys ------------------------------------------------------------------------------


@pytest.fixture
def pooled(start_gateway: StartGateway, pool: KeyServer) -> Gateway:
    """A gateway that has not asked it yet."""
    return start_gateway(COGNITO_JWKS_URL=pool.url)


@pytest.fixture
def knowing(pooled: Gateway, issuer: Issuer) -> Gateway:
    """A gateway that has the pool's key."""
    assert ask(pooled, issuer.token("somebody")).status == 200
    return pooled


def test_unknown_key_ids_cost_one_fetch_per_window(
    knowing: Gateway, pool: KeyServer, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_WINDOW", 3_600.0)
    assert pool.asked == 1
    for number in range(200):
        forged = issuer.token("somebody", kid=f"random-{number}")
        assert verdict(ask(knowing, forged)) == WRONG
    assert pool.asked == 2


def test_no_key_is_fetched_for_a_malformed_token(pooled: Gateway, pool: KeyServer) -> None:
    assert verdict(ask(pooled, "a.b.c")) == MISSING
    assert pool.asked == 0


def test_a_new_key_of_the_pool_is_found_at_once(
    knowing: Gateway, pool: KeyServer, issuer: Issuer
) -> None:
    rotated = Issuer("second-key")
    pool.keys = [rotated.jwk]
    assert ask(knowing, rotated.token("somebody")).status == 200
    assert verdict(ask(knowing, issuer.token("somebody"))) == WRONG


@pytest.mark.parametrize("outage", ["is_down", "hangs"])
def test_known_keys_keep_working_while_the_key_server_does_not_answer(
    knowing: Gateway,
    pool: KeyServer,
    issuer: Issuer,
    outage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys, "_TIMEOUT", aiohttp.ClientTimeout(total=None))
    monkeypatch.setattr(keys, "_MAX_AGE", 0.0)
    setattr(pool, outage, True)
    for _ in range(3):
        assert ask(knowing, issuer.token(fresh())).status == 200
    asyncio.run(eventually(lambda: pool.asked == 2))  # nobody waits long for the renewal


def test_while_no_key_is_known_the_client_is_asked_to_retry(
    pooled: Gateway, pool: KeyServer, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_FIRST_RETRY", 0.0)
    pool.is_down = True
    reply = ask(pooled, issuer.token("somebody"))
    assert reply.status == 503
    assert reply.detail
    assert reply.headers["retry-after"]
    pool.is_down = False
    assert ask(pooled, issuer.token("somebody")).status == 200


@pytest.mark.parametrize(
    "answer", [[], [{}], [{"kty": "RSA", "kid": "x", "n": "!", "e": "AQAB"}], [3], "x"], ids=str
)
def test_an_unusable_key_set_does_not_replace_the_good_one(
    knowing: Gateway, pool: KeyServer, issuer: Issuer, answer: Any
) -> None:
    pool.keys = answer
    assert verdict(ask(knowing, Issuer("unknown").token("somebody"))) == WRONG
    assert ask(knowing, issuer.token("somebody", aud=CLIENT)).status == 200


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("expired", {"exp": 1}), ("audience", {"aud": "another-client"}),
        ("issuer", {"iss": "https://example.com"}), ("not_id_token", {"token_use": "access"}),
        ("claims", {"cognito__username": 3}), ("claims", {"aud": ...}),
        ("unknown_key", {"kid": "x"}),
    ],
)  # fmt: skip
def test_a_token_that_is_refused_is_logged_with_the_reason(
    gateway: Gateway, issuer: Issuer, capfd: Any, reason: str, changes: dict[str, Any]
) -> None:
    assert_refused(gateway, capfd, f"Bearer {issuer.token('somebody', **changes)}", reason)


@pytest.mark.parametrize("value", ["Basic dTpw", "Bearer x", "Bearer a.b.c", "Bearer é.ü.x"])
def test_what_is_no_token_is_logged_as_malformed(gateway: Gateway, capfd: Any, value: str) -> None:
    assert_refused(gateway, capfd, value, "malformed")


def test_other_refusals_are_logged(gateway: Gateway, issuer: Issuer, capfd: Any) -> None:
    assert_refused(gateway, capfd, "", "missing")
    forged = Issuer(issuer.kid).token("somebody")
    assert_refused(gateway, capfd, f"Bearer {forged}", "signature")
    without_key = jwt.encode(issuer.claims("somebody"), "k" * 32, "HS256")
    assert_refused(gateway, capfd, f"Bearer {without_key}", "algorithm")


def test_a_wrong_internal_key_is_logged(gateway: Gateway, capfd: Any) -> None:
    before, address = refused("api_key"), next(ADDRESSES)
    headers = {"x-api-key": "wrong-secret", "X-Forwarded-For": address}
    assert Api(gateway).put("/_job_status", json={}, headers=headers).status == 401
    assert_logged(capfd, address, "api_key", "wrong-secret")
    assert refused("api_key") == before + 1


def test_credentials_that_hold_are_not_logged_as_refused(api: Api, capfd: Any) -> None:
    address = next(ADDRESSES)
    assert api.get("/user", headers={"X-Forwarded-For": address}).status == 200
    assert f"address={address}" not in capfd.readouterr().out


def assert_refused(gateway: Gateway, capfd: Any, authorization: str, reason: str) -> None:
    before, address = refused(reason), next(ADDRESSES)
    headers = {"Authorization": authorization, "X-Forwarded-For": address}
    for _ in range(3):
        assert Api(gateway).get("/user", headers=headers).status == 401
    assert_logged(capfd, address, reason, authorization)
    assert refused(reason) == before + 3


def assert_logged(capfd: Any, address: str, reason: str, secret: str) -> None:
    """One line, however many were refused."""
    written = capfd.readouterr().out
    (line,) = [line for line in written.splitlines() if f"address={address} " in line]
    assert "credentials.refused" in line
    assert f"reason={reason}" in line
    assert not secret or secret not in written


def refused(reason: str) -> float:
    found = REGISTRY.get_sample_value("opencloud_credentials_refused_total", {"reason": reason})
    assert found is not None, "declared at start, so that a rate can be taken"
    return found
