"""`/user`, `/token` and `/login`."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp_apispec import docs, form_schema, response_schema
from marshmallow import fields, pre_load

from gateway.auth.errors import (
    AccountRefused,
    KeysUnavailable,
    UnknownUser,
    UserExists,
    WeakPassword,
    WrongPassword,
)
from gateway.auth.throttle import LogInThrottle, account_key
from gateway.http.audit import audit
from gateway.http.callers import client_of
from gateway.http.errors import Answer, ErrorTable
from gateway.http.fields import Choice, Items, RequestSchema, Text, means_null
from gateway.http.keys import USER
from gateway.http.limits import LimitExceeded
from gateway.http.refusals import REFUSALS
from gateway.http.responses import AnswerSchema, json_response
from gateway.http.security import check_page

if TYPE_CHECKING:
    from gateway.auth.accounts import Accounts, IssuedToken  # with botocore

ACCOUNTS: Final[web.AppKey["Accounts"]] = web.AppKey("accounts")
LOG_INS: Final = web.AppKey("log_ins", LogInThrottle)

ERRORS: Final[ErrorTable] = {
    AccountRefused: Answer(HTTPStatus.BAD_REQUEST),
    UnknownUser: Answer(HTTPStatus.NOT_FOUND, "User not found"),
    WrongPassword: Answer(HTTPStatus.BAD_REQUEST, "Incorrect email or password"),
    WeakPassword: Answer(HTTPStatus.BAD_REQUEST, "Password does not meet requirements"),
    UserExists: Answer(HTTPStatus.CONFLICT, "User already exists"),
    KeysUnavailable: Answer(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Tokens cannot be verified at the moment",
        {"Retry-After": "5"},
    ),
}

GROUPS: Final = ("users", "workers", "cloud")
_COOKIE_SECONDS: Final = 1800
_NO_STORE: Final = {"Cache-Control": "no-store"}


class CredentialsSchema(RequestSchema):
    """An e-mail address (as `username` or `email`) and a password."""

    username = Text(required=True)
    password = Text(longest=1_024, required=True, metadata={"format": "password"})

    @pre_load
    def accept_email(self, data: Any, **_: Any) -> Any:
        if isinstance(data, dict) and not data.get("username") and "email" in data:
            return {**data, "username": data["email"]}
        return data


class TokenRequestSchema(CredentialsSchema):
    """Credentials, as OAuth 2's password grant (RFC 6749, section 4.3) names them."""

    grant_type = Choice(["password"], load_default="password", allow_none=True)


class RegistrationSchema(CredentialsSchema):
    """Credentials of a new user, and the groups to join."""

    groups = Items(Choice(GROUPS), most=10, load_default=None, allow_none=True)

    @pre_load
    def accept_one_group(self, data: Any, **_: Any) -> Any:
        """A form may hold one group, or several with commas."""
        groups = data.get("groups") if isinstance(data, dict) else None
        if isinstance(groups, str) and not means_null(groups):
            return {**data, "groups": [part.strip() for part in groups.split(",")]}
        return data


class UserSchema(AnswerSchema):
    """A user, as the token describes it."""

    email = fields.String(allow_none=True)
    groups = fields.List(fields.String())


class TokenSchema(AnswerSchema):
    """An ID token; it is valid for `expires_in` seconds."""

    id_token = fields.String()
    expires_in = fields.Integer()


class LoginSchema(AnswerSchema):
    """The answer that sets the cookie."""

    message = fields.String()


_USER_EXAMPLE: Final = {"email": "user@example.com", "groups": ["users"]}
_CREDENTIALS_EXAMPLE: Final = {"username": "user@example.com", "password": "Microscopy-1"}
_LOGGED_IN: Final = {"message": "You've successfully logged in. Welcome back!"}
_COGNITO_AWAY: Final = "AWS does not answer at the moment"
_JSON_NAMES: Final = {"username": "email"}


@docs(
    tags=["Account"],
    summary="Who am I",
    description="The e-mail address and the groups of the caller's token.",
    response_example=_USER_EXAMPLE,
)
@response_schema(UserSchema, HTTPStatus.OK, description="The caller.")
async def current_user(request: web.Request) -> web.Response:
    user = request[USER]
    return json_response({"email": user.email, "groups": user.groups})


@docs(
    tags=["Account"],
    summary="Register a user",
    description="Creates a Cognito user with a permanent password, its groups and its storage.",
    errors={
        400: "Password does not meet requirements",
        409: "User already exists",
        503: _COGNITO_AWAY,
    },
    request_example={**_CREDENTIALS_EXAMPLE, "groups": ["users"]},
    json_names=_JSON_NAMES,
    response_example=_USER_EXAMPLE,
)
@form_schema(RegistrationSchema)
@response_schema(UserSchema, HTTPStatus.CREATED, description="The new user.")
async def register(request: web.Request) -> web.Response:
    form = request["form"]
    groups = list(dict.fromkeys(form["groups"] or ["users"]))
    await request.app[ACCOUNTS].register(form["username"], form["password"], groups)
    created = {"email": form["username"], "groups": groups}
    return json_response(created, status=HTTPStatus.CREATED, headers=_NO_STORE)


@docs(
    tags=["Account"],
    summary="Get a token",
    description="Exchanges e-mail address and password for an ID token.",
    errors={400: "Incorrect email or password", 404: "User not found", 503: _COGNITO_AWAY},
    request_example=_CREDENTIALS_EXAMPLE,
    json_names=_JSON_NAMES,
    response_example={"id_token": "eyJraWQiOi…", "expires_in": 3600},
)
@form_schema(TokenRequestSchema)
@response_schema(TokenSchema, HTTPStatus.CREATED, description="The token.")
async def issue_token(request: web.Request) -> web.Response:
    issued = await _check_password(request)
    return json_response(issued, status=HTTPStatus.CREATED, headers=_NO_STORE)


@docs(
    tags=["Account"],
    summary="Log in",
    description="Like `/token`, but keeps the token in a cookie of the browser for half an hour.",
    errors={
        400: "Incorrect email or password",
        403: "A page of another site may not log in",
        404: "User not found",
        503: _COGNITO_AWAY,
    },
    request_example=_CREDENTIALS_EXAMPLE,
    json_names=_JSON_NAMES,
    response_example=_LOGGED_IN,
)
@form_schema(CredentialsSchema)
@response_schema(LoginSchema, HTTPStatus.OK, description="The cookie is set.")
async def log_in(request: web.Request) -> web.Response:
    check_page(request)
    issued = await _check_password(request)
    response = json_response(_LOGGED_IN, headers=_NO_STORE)
    response.set_cookie(
        "Authorization",
        f"Bearer {issued.id_token}",
        max_age=_COOKIE_SECONDS,
        path="/",
        secure=True,
        httponly=True,
        samesite="None",
    )
    return response


async def _check_password(request: web.Request) -> "IssuedToken":
    form, client = request["form"], client_of(request)
    account = form["username"]
    try:
        async with request.app[LOG_INS].attempt(client.caller, account):
            issued = await request.app[ACCOUNTS].issue_token(account, form["password"])
    except (WrongPassword, UnknownUser) as error:
        request.app[REFUSALS].record(request, "password")
        # what is no account may be anything, a password in the wrong field for example
        target = _account(account) if isinstance(error, WrongPassword) else None
        audit(request, "log_in", "refused", target=target)
        raise
    except LimitExceeded:
        request.app[REFUSALS].record(request, "throttled")
        raise
    audit(request, "log_in", target=_account(account), user_id=issued.user_id)
    return issued


def _account(name: str) -> str:
    """An account in the audit trail, which holds no e-mail addresses."""
    return f"account:{account_key(name).hex()}"
