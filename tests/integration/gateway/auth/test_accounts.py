"""Registration and log-in, with Cognito played by moto."""

import base64
import hashlib
import hmac
import random
import shutil
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import boto3
import jwt
import pytest
from botocore.exceptions import ClientError
from prometheus_client import REGISTRY

from common.aws import AwsError
from deploy.sandbox import aws
from devtools.user_pool import CLIENT, POOL, REGION
from gateway.auth.accounts import Accounts
from gateway.auth.errors import AccountRefused, UnknownUser, WrongPassword
from gateway.auth.throttle import account_key
from gateway.settings import CognitoSettings
from tests.integration.gateway.conftest import StartGateway, own_places
from tests.support.gateway import FRONTEND, Api, Gateway, Reply, audited, fresh

PASSWORD = "Passw0rd!x"
ROUTES = ["/user", "/token", "/login"]
REFUSED = ("opencloud_credentials_refused_total", {"reason": "password"})
GREETING = {"message": "You've successfully logged in. Welcome back!"}


def address() -> str:
    return f"{fresh()}@example.com"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """Address of moto's server; AWS's own variables point to it meanwhile."""
    with pytest.MonkeyPatch.context() as patch, aws.moto_server() as endpoint:
        for name, value in aws.environment(endpoint, REGION).items():
            patch.setenv(name, value)
        yield endpoint


@pytest.fixture(scope="module")
def cognito(moto: str) -> Iterator[Any]:
    client = boto3.client("cognito-idp")
    yield client
    client.close()


@pytest.fixture(scope="module")
def pool(cognito: Any) -> dict[str, str]:
    """A user pool whose user names are addresses, and a client with a secret."""
    created = cognito.create_user_pool(PoolName="test", UsernameAttributes=["email"])
    pool_id = created["UserPool"]["Id"]
    client = cognito.create_user_pool_client(
        UserPoolId=pool_id,
        ClientName="test",
        GenerateSecret=True,
        ReadAttributes=["email"],
        ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH"],
    )["UserPoolClient"]
    for group in ("users", "workers", "cloud"):
        cognito.create_group(GroupName=group, UserPoolId=pool_id)
    return {
        "COGNITO_USER_POOL_ID": pool_id,
        "COGNITO_CLIENT_ID": client["ClientId"],
        "COGNITO_SECRET": client["ClientSecret"],
    }


@pytest.fixture(scope="module")
def accounts(
    moto: str,
    pool: dict[str, str],
    environment: dict[str, str],
    sqlite_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A gateway outside production."""
    folder = tmp_path_factory.mktemp("accounts")
    shutil.copy(sqlite_template, folder / "opencloud.db")
    keys = f"{moto}/{pool['COGNITO_USER_POOL_ID']}/.well-known/jwks.json"
    own = {"PROD": "false", "COGNITO_JWKS_URL": keys, **own_places(folder)}
    with Gateway({**environment, **pool, **own}) as gateway:
        yield gateway


@pytest.fixture
def client(accounts: Gateway) -> Api:
    """A caller from an address of its own: wrong passwords are counted by address."""
    return from_anywhere(accounts)


def from_anywhere(gateway: Gateway) -> Api:
    address = IPv4Address(random.getrandbits(32))
    return Api(gateway, headers={"X-Forwarded-For": str(address)})


@pytest.fixture(scope="module")
def known(accounts: Gateway) -> str:
    """Address of a user who is registered."""
    email = address()
    reply = Api(accounts).post("/user", json={"email": email, "password": PASSWORD})
    assert reply.status == 201, reply
    return email


# -- registration --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["email", "username"])
@pytest.mark.parametrize("as_form", [True, False])
def test_a_new_user_can_log_in_and_has_a_tree(client: Api, name: str, as_form: bool) -> None:
    email = address()
    before = set(client.gateway.root.glob("*"))
    fields = {name: email, "password": PASSWORD}
    sent: dict[str, Any] = {"form": fields} if as_form else {"json": fields}
    reply = client.post("/user", **sent)
    assert (reply.status, reply.json()) == (201, {"email": email, "groups": ["users"]})
    (tree,) = set(client.gateway.root.glob("*")) - before
    assert (tree / "data").is_dir()
    issued = client.post("/token", **sent)
    assert issued.status == 201
    assert set(issued.json()) == {"id_token", "expires_in"}
    assert isinstance(issued.json()["expires_in"], int)
    newcomer = Api(client.gateway, token=issued.json()["id_token"])
    assert newcomer.get("/user").json() == {"email": email, "groups": ["users"]}
    assert newcomer.get("/files/").status == 200


@pytest.mark.parametrize(
    ("kind", "chosen", "groups"),
    [
        ("json", ["users", "cloud"], ["users", "cloud"]), ("json", "workers", ["workers"]),
        ("json", [], ["users"]), ("json", None, ["users"]), ("json", "null", ["users"]),
        ("json", ["users", "users"], ["users"]), ("form", "workers", ["workers"]),
        ("form", ["users", "cloud"], ["users", "cloud"]), ("form", "", ["users"]),
        ("form", "null", ["users"]), ("form", "users, cloud", ["users", "cloud"]),
    ],
    ids=str,
)  # fmt: skip
def test_groups_may_be_chosen(
    client: Api, cognito: Any, pool: Any, kind: str, chosen: Any, groups: list[str]
) -> None:
    email = address()
    fields = {"email": email, "password": PASSWORD, "groups": chosen}
    reply = client.post("/user", **{kind: fields})
    assert (reply.status, reply.json()) == (201, {"email": email, "groups": groups})
    found = cognito.admin_list_groups_for_user(
        UserPoolId=pool["COGNITO_USER_POOL_ID"], Username=email
    )
    assert {group["GroupName"] for group in found["Groups"]} == set(groups)


@pytest.mark.parametrize("groups", [["kings"], ["users", "kings"], "kings", [3], [None]], ids=str)
def test_unknown_groups_are_refused(client: Api, groups: Any) -> None:
    email = address()
    fields = {"email": email, "password": PASSWORD, "groups": groups}
    reply = client.post("/user", json=fields)
    index = len(groups) - 1 if isinstance(groups, list) else 0
    assert reply.faults() == {(("body", "groups", index), "enum")}
    assert client.post("/token", json={"email": email, "password": PASSWORD}).status == 404


def test_a_known_user_is_a_conflict(client: Api, known: str) -> None:
    fields = {"email": known, "password": PASSWORD}
    reply = client.post("/user", json=fields)
    assert (reply.status, reply.json()) == (409, {"detail": "User already exists"})
    assert client.post("/token", json=fields).status == 201


def test_a_weak_password_leaves_no_user_behind(client: Api) -> None:
    fields = {"email": address(), "password": "x"}
    reply = client.post("/user", json=fields)
    assert (reply.status, reply.json()) == (400, {"detail": "Password does not meet requirements"})
    assert client.post("/token", json=fields).detail == "User not found"
    assert client.post("/user", json={**fields, "password": PASSWORD}).status == 201


def test_any_other_refusal_by_cognito_shows_its_code(client: Api) -> None:
    reply = client.post("/user", json={"email": "no address", "password": PASSWORD})
    assert reply.status == 400
    assert "InvalidParameterException" in reply.detail


# -- log-in --------------------------------------------------------------------------------------


def test_log_in_sets_a_cookie_that_is_taken(client: Api, known: str) -> None:
    reply = client.post("/login", form={"username": known, "password": PASSWORD})
    assert (reply.status, reply.json()) == (200, GREETING)
    cookie, *attributes = reply.headers["set-cookie"].split("; ")
    assert set(attributes) == {"HttpOnly", "Secure", "SameSite=None", "Max-Age=1800", "Path=/"}
    assert cookie.startswith('Authorization="Bearer ')
    browser = Api(client.gateway, headers={"Cookie": cookie})
    assert browser.get("/user").json()["email"] == known
    assert browser.post("/files/data/x/").status == 403
    assert browser.post("/files/data/x/", headers={"Origin": FRONTEND}).status == 201


@pytest.mark.parametrize(("path", "good"), [("/token", 201), ("/login", 200)])
def test_credentials_may_have_any_form(client: Api, known: str, path: str, good: int) -> None:
    for name in ("email", "username"):
        fields = {name: known, "password": PASSWORD}
        assert client.post(path, json=fields).status == good
        assert client.post(path, form=fields).status == good
    both = {"username": None, "email": known, "password": PASSWORD}
    assert client.post(path, json=both).status == good


@pytest.mark.parametrize("path", ["/token", "/login"])
def test_wrong_credentials_are_refused(client: Api, known: str, path: str) -> None:
    wrong = client.post(path, form={"username": known, "password": "Wr0ng!pass"})
    assert (wrong.status, wrong.json()) == (400, {"detail": "Incorrect email or password"})
    assert "set-cookie" not in wrong.headers
    unknown = client.post(path, form={"username": address(), "password": PASSWORD})
    assert (unknown.status, unknown.json()) == (404, {"detail": "User not found"})


LIMIT = "Limit exceeded: 10 wrong passwords in 300 s"


def register(client: Api) -> dict[str, str]:
    """The credentials of a new account."""
    fields = {"email": address(), "password": PASSWORD}
    assert client.post("/user", json=fields).status == 201
    return fields


def assert_throttled(reply: Reply) -> None:
    assert (reply.status, reply.json()) == (429, {"detail": LIMIT})
    assert 200 < int(reply.headers["retry-after"]) <= 300
    assert "set-cookie" not in reply.headers


def test_wrong_passwords_of_an_account_are_limited_from_any_address(client: Api) -> None:
    right, other = register(client), register(client)
    wrong = {"email": right["email"].upper(), "password": "Wr0ng!pass"}
    for number in range(10):
        path = "/token" if number % 2 else "/login"
        assert from_anywhere(client.gateway).post(path, json=wrong).status in {400, 404}
    for path in ("/token", "/login"):
        assert_throttled(client.post(path, json=right))
        assert_throttled(client.post(path, json=wrong))
    assert client.post("/token", json=other).status == 201


def test_wrong_passwords_of_an_address_are_limited_for_any_account(client: Api) -> None:
    right = register(client)
    for number in range(10):
        path = "/token" if number % 2 else "/login"
        reply = client.post(path, json={"email": address(), "password": PASSWORD})
        assert (reply.status, reply.detail) == (404, "User not found")
    assert_throttled(client.post("/token", json=right))
    assert_throttled(client.post("/login", form=right))
    assert from_anywhere(client.gateway).post("/token", json=right).status == 201


def test_right_passwords_and_bad_requests_are_not_limited(client: Api) -> None:
    right = register(client)
    for _ in range(11):
        assert client.post("/token", json={"email": right["email"]}).status == 422
        assert client.post("/token", json=right).status == 201


def test_a_wrong_password_is_logged_and_counted(
    client: Api, known: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = REGISTRY.get_sample_value(*REFUSED)
    client.post("/token", json={"email": known, "password": "Wr0ng!pass"})
    client.post("/login", json={"email": address(), "password": "Wr0ng!pass"})
    assert REGISTRY.get_sample_value(*REFUSED) == (before or 0) + 2
    written = capfd.readouterr().out
    where = f"address={client.headers['X-Forwarded-For']}"
    (line,) = [text for text in written.splitlines() if "credentials.ref" in text and where in text]
    assert "reason=password" in line
    assert "Wr0ng" not in written
    assert known not in written


def test_log_ins_are_in_the_audit_trail_without_the_address(
    client: Api, known: str, capfd: pytest.CaptureFixture[str]
) -> None:
    account = f"account:{account_key(known).hex()}"
    right = {"email": known, "password": PASSWORD}
    answers = [
        client.post("/token", json=right),
        client.post("/login", json={**right, "password": "Wr0ng!pass"}),
        client.post("/login", json={**right, "email": address()}),
    ]
    assert [answer.status for answer in answers] == [201, 400, 404]
    claims = jwt.decode(answers[0].json()["id_token"], options={"verify_signature": False})
    written = capfd.readouterr().out
    for answer, outcome, user, target in zip(
        answers,
        ("ok", "refused", "refused"),
        (claims["cognito:username"], None, None),
        (account, account, None),
        strict=True,
    ):
        line = audited(written, "log_in", answer.headers["x-request-id"])
        assert f"outcome={outcome} " in line
        assert f"target={target} " in line
        assert f"user_id={user}" in line
        assert f"address={client.headers['X-Forwarded-For']} " in line
    assert known not in written


@pytest.mark.parametrize(
    ("headers", "is_foreign"),
    [
        ({}, False),
        ({"Origin": FRONTEND}, False),
        ({"Origin": FRONTEND, "Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "http://own.example", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "http://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "http://evil.own.example", "Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
    ],
    ids=str,
)
def test_no_page_of_another_site_logs_in(
    client: Api, known: str, headers: dict[str, str], is_foreign: bool
) -> None:
    reply = client.post("/login", form={"username": known, "password": PASSWORD}, headers=headers)
    if is_foreign:
        assert (reply.status, reply.detail) == (403, "A page of another site may not log in")
        assert "set-cookie" not in reply.headers
    else:
        assert reply.status == 200


def test_answers_about_accounts_are_not_stored(client: Api) -> None:
    fields = {"email": address(), "password": PASSWORD}
    for path in ROUTES:
        assert client.post(path, json=fields).headers["cache-control"] == "no-store"


def test_the_grant_type_is_password(client: Api, known: str) -> None:
    fields = {"username": known, "password": PASSWORD}
    for grant in ("password", "", "null"):
        assert client.post("/token", form={**fields, "grant_type": grant}).status == 201
    reply = client.post("/token", form={**fields, "grant_type": "refresh_token"})
    assert reply.faults() == {(("body", "grant_type"), "enum")}


BOTH_MISSING = {(("body", "username"), "missing"), (("body", "password"), "missing")}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
JSON = {"Content-Type": "application/json"}
PART = b'Content-Disposition: form-data; name="x"\r\n\r\n1\r\n'
TOO_MANY = "A form may have at most 100 fields and 4194304 bytes"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("body", "headers", "faults"),
    [
        (None, {}, BOTH_MISSING),
        (b"", FORM, BOTH_MISSING),
        (b"{}", JSON, BOTH_MISSING),
        (b"", JSON, {(("body",), "missing")}),
        (b"{", JSON, {(("body",), "json_invalid")}),
        (b"[]", JSON, {(("body",), "model_type")}),
        (b'{"email": 3}', JSON, {(("body", "username"), "string_type"),
                                 (("body", "password"), "missing")}),
        (b"\xff=%zz", FORM, {(("body",), "form_invalid")}),
        (b"x", {"Content-Type": FORM["Content-Type"] + "; charset=none-such"},
         {(("body",), "form_invalid")}),
        (b"junk", MULTIPART, {(("body",), "form_invalid")}),
        (b"--b\r\nbad header\r\n\r\nx\r\n--b--\r\n", MULTIPART, {(("body",), "form_invalid")}),
    ],
    ids=lambda value: "" if isinstance(value, set) else str(value)[:20],
)  # fmt: skip
def test_malformed_credentials_are_refused(client: Api, path, body, headers, faults) -> None:
    assert client.post(path, body=body, headers=headers).faults() == faults


@pytest.mark.parametrize("path", ROUTES)
def test_a_form_that_is_too_long_is_refused(client: Api, path: str) -> None:
    assert client.post(path, body=b"x" * 5_000_000, headers=FORM).status == 413
    for part, headers in ((b"x=1&", FORM), (b"--b\r\n" + PART, MULTIPART)):
        reply = client.post(path, body=part * 101, headers=headers)
        assert (reply.status, reply.detail) == (413, TOO_MANY)


# -- on and off ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("prod", "statuses"), [("true", [405, 404, 404]), ("false", [422] * 3)])
def test_the_routes_exist_only_when_switched_on(
    start_gateway: StartGateway, prod: str, statuses: list[int]
) -> None:
    anybody = Api(start_gateway(PROD=prod))
    assert [anybody.post(path).status for path in ROUTES] == statuses


# -- what Cognito is sent ------------------------------------------------------------------------


class FakeCognito:
    """Records its calls; those that `errors` names fail."""

    def __init__(self, **errors: Exception) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._errors = errors

    def __getattr__(self, name: str) -> Any:
        async def call(**arguments: Any) -> dict[str, Any]:
            self.calls.append((name, arguments))
            if name in self._errors:
                raise self._errors[name]
            result = {"IdToken": "token", "ExpiresIn": 3600}
            return {"AuthenticationResult": result, "User": {"Username": "new-user"}}

        return call


class FakeStorage:
    def __init__(self, error: Exception | None = None) -> None:
        self.users: list[str] = []
        self._error = error

    async def ensure_user(self, user: str) -> None:
        if self._error:
            raise self._error
        self.users.append(user)


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "secret words"}}, "operation")


def accounts_with(
    client: FakeCognito, *, secret: str = "", storage: FakeStorage | None = None
) -> Accounts:
    settings = CognitoSettings(
        region=REGION, user_pool_id=POOL, client_id=CLIENT, jwks_url="", client_secret=secret
    )
    return Accounts(client, settings, storage or FakeStorage())  # type: ignore[arg-type]


async def test_a_secret_hash_is_sent_with_a_client_secret_only() -> None:
    digest = hmac.digest(b"hush", f"me@example.com{CLIENT}".encode(), hashlib.sha256)
    hashed = {"SECRET_HASH": base64.b64encode(digest).decode()}
    for secret, expected in (("hush", hashed), ("", {})):
        client = FakeCognito()
        await accounts_with(client, secret=secret).issue_token("me@example.com", "pw")
        ((_, sent),) = client.calls
        credentials = {"USERNAME": "me@example.com", "PASSWORD": "pw"}
        assert sent["AuthParameters"] == {**credentials, **expected}


@pytest.mark.parametrize(
    ("error", "kind", "shown"),
    [
        (refusal("UserNotFoundException"), UnknownUser, "UserNotFoundException"),
        (refusal("NotAuthorizedException"), WrongPassword, "NotAuthorizedException"),
        (refusal("TooManyRequestsException"), AccountRefused, "TooManyRequestsException"),
        (OSError("down"), AwsError, "did not answer"),
    ],
)
async def test_a_failed_log_in_shows_no_more_than_a_code(
    error: Exception, kind: type[Exception], shown: str
) -> None:
    client = FakeCognito(initiate_auth=error)
    with pytest.raises(kind, match=shown) as caught:
        await accounts_with(client).issue_token("me@example.com", "pw")
    assert "secret words" not in str(caught.value)


async def test_the_password_is_permanent() -> None:
    client, storage = FakeCognito(), FakeStorage()
    await accounts_with(client, storage=storage).register("me@example.com", "pw", ["users"])
    calls = dict(client.calls)
    assert calls["admin_set_user_password"]["Permanent"] is True
    assert calls["admin_create_user"]["MessageAction"] == "SUPPRESS"
    assert storage.users == ["new-user"]


@pytest.mark.parametrize("step", ["admin_set_user_password", "admin_add_user_to_group", "storage"])
async def test_a_registration_that_fails_half_way_leaves_no_user(step: str) -> None:
    error = refusal("ResourceNotFoundException")
    client = FakeCognito(**({} if step == "storage" else {step: error}))
    storage = FakeStorage(OSError("full") if step == "storage" else None)
    with pytest.raises((AccountRefused, AwsError)):
        await accounts_with(client, storage=storage).register("me@example.com", "pw", ["users"])
    name, arguments = client.calls[-1]
    assert name == "admin_delete_user"
    assert arguments["Username"] == "new-user"
