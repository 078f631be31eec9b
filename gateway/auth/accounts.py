"""Accounts in Cognito: registration and password log-in, outside production only."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from common.aws import AwsError, error_code
from common.storage.paths import is_user_name
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger
from gateway.auth.errors import (
    AccountRefused,
    UnknownUser,
    UserExists,
    WeakPassword,
    WrongPassword,
)
from gateway.settings import CognitoSettings

_Errors = Mapping[str, type[AccountRefused]]

_LOG_IN_ERRORS: Final[_Errors] = {
    "UserNotFoundException": UnknownUser,
    "NotAuthorizedException": WrongPassword,
}
_REGISTRATION_ERRORS: Final[_Errors] = {
    "InvalidPasswordException": WeakPassword,
    "UsernameExistsException": UserExists,
    "AliasExistsException": UserExists,
}

_FAILURES: Final = (ClientError, BotoCoreError, OSError)
"""What a call to Cognito may fail with."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An ID token; it is valid for `expires_in` seconds."""

    id_token: str
    expires_in: int

    @property
    def user_id(self) -> str | None:
        """The user that the token names; it comes from Cognito, so that nothing is verified."""
        try:
            claims = jwt.decode(self.id_token, options={"verify_signature": False})
        except jwt.PyJWTError:
            return None
        return claims.get("cognito:username")


class Accounts:
    """Creates users and issues tokens; `client` is aiobotocore's for Cognito."""

    def __init__(self, client: Any, settings: CognitoSettings, storage: Storage) -> None:
        self._client = client
        self._settings = settings
        self._storage = storage

    async def issue_token(self, email: str, password: str) -> IssuedToken:
        """Log in.

        Raises `UnknownUser`, `WrongPassword`, `AccountRefused` for any other refusal, and
        `AwsError` when Cognito does not answer.
        """
        parameters = {"USERNAME": email, "PASSWORD": password, **self._secret_hash(email)}
        try:
            answer = await self._client.initiate_auth(
                AuthFlow="USER_PASSWORD_AUTH",
                ClientId=self._settings.client_id,
                AuthParameters=parameters,
            )
        except _FAILURES as error:
            raise _error_of(error, _LOG_IN_ERRORS) from error
        issued = answer.get("AuthenticationResult")
        if not issued:  # a challenge, such as a password that has to be changed first
            challenge = answer.get("ChallengeName", "unknown")
            raise AccountRefused(f"Cognito asks for more than a password: {challenge}")
        return IssuedToken(issued["IdToken"], int(issued["ExpiresIn"]))

    async def register(self, email: str, password: str, groups: Sequence[str]) -> None:
        """Create a user with a permanent password, its groups and its storage.

        Raises `UserExists`, `WeakPassword`, `AccountRefused` for any other refusal, and `AwsError`
        when Cognito does not answer; a failed registration leaves no user behind.
        """
        pool = {"UserPoolId": self._settings.user_pool_id}
        user_name = await self._create(pool, email)
        try:
            user = {**pool, "Username": user_name}
            await self._client.admin_set_user_password(**user, Password=password, Permanent=True)
            for group in groups:
                await self._client.admin_add_user_to_group(**user, GroupName=group)
            if is_user_name(user_name):
                await self._storage.ensure_user(user_name)
        except BaseException as error:
            await self._remove(pool, user_name)
            if isinstance(error, _FAILURES):
                raise _error_of(error, _REGISTRATION_ERRORS) from error
            raise
        log.info("account.created", groups=list(groups))

    async def _create(self, pool: dict[str, str], email: str) -> str:
        try:
            answer = await self._client.admin_create_user(
                **pool,
                Username=email,
                UserAttributes=[
                    {"Name": "email", "Value": email},
                    {"Name": "email_verified", "Value": "true"},
                ],
                MessageAction="SUPPRESS",
            )
        except _FAILURES as error:
            raise _error_of(error, _REGISTRATION_ERRORS) from error
        return str(answer["User"]["Username"])

    async def _remove(self, pool: dict[str, str], user_name: str) -> None:
        try:
            await self._client.admin_delete_user(**pool, Username=user_name)
        except _FAILURES as error:
            log.error("account.left_behind", user_id=user_name, reason=error_code(error))

    def _secret_hash(self, user_name: str) -> dict[str, str]:
        """Cognito's SECRET_HASH: HMAC-SHA256 of user name and client id, keyed by the secret."""
        if not self._settings.client_secret:
            return {}
        digest = hmac.new(
            self._settings.client_secret.encode(),
            (user_name + self._settings.client_id).encode(),
            hashlib.sha256,
        ).digest()
        return {"SECRET_HASH": base64.b64encode(digest).decode()}


def _error_of(error: Exception, known: _Errors) -> Exception:
    """Our error for one of botocore's; `known` are Cognito's codes with an error of their own."""
    code = error_code(error)
    if kind := known.get(code):
        return kind(code)
    if isinstance(error, ClientError | ParamValidationError):
        return AccountRefused(f"Cognito refused the request: {code}")
    return AwsError(f"Cognito did not answer ({code})")
