"""Accounts in Cognito: registration and password log-in, outside production only."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from common.aws import AwsError, create_client, describe
from common.storage.paths import is_user_name
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger
from gateway.http.errors import Conflict, NotThere, Refused
from gateway.settings import CognitoSettings

_PASSWORD: Final = frozenset({"InvalidPasswordException"})
_TAKEN: Final = frozenset({"UsernameExistsException", "AliasExistsException"})
_UNKNOWN: Final = frozenset({"UserNotFoundException"})
_WRONG: Final = frozenset({"NotAuthorizedException"})

log = get_logger()


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An ID token and the seconds for which it holds."""

    id_token: str
    expires_in: int


class CognitoRefused(Refused):
    """Any other error of Cognito's; the sentence holds its code."""


class Accounts:
    """Creates users and issues tokens; one Cognito client for the life of the process."""

    def __init__(self, client: Any, settings: CognitoSettings, storage: Storage) -> None:
        self._client = client
        self._settings = settings
        self._storage = storage

    async def issue_token(self, email: str, password: str) -> IssuedToken:
        """Log in. Raises `NotThere` for an unknown user, `Refused` for a wrong password."""
        parameters = {"USERNAME": email, "PASSWORD": password, **self._secret_hash(email)}
        try:
            answer = await self._client.initiate_auth(
                AuthFlow="USER_PASSWORD_AUTH",
                ClientId=self._settings.client_id,
                AuthParameters=parameters,
            )
        except (ClientError, BotoCoreError, OSError) as error:
            code = describe(error)
            if code in _UNKNOWN:
                raise NotThere("User not found") from error
            if code in _WRONG:
                raise Refused("Incorrect email or password") from error
            raise _refusal(error) from error
        issued = answer.get("AuthenticationResult")
        if not issued:  # a challenge, such as a password that has to be changed first
            challenge = answer.get("ChallengeName", "unknown")
            raise CognitoRefused(f"Cognito asks for more than a password: {challenge}")
        return IssuedToken(issued["IdToken"], int(issued["ExpiresIn"]))

    async def register(self, email: str, password: str, groups: Sequence[str]) -> None:
        """Create a user with a permanent password, its groups and its storage.

        Raises `Conflict` for one that exists, `Refused` for what Cognito does not accept; a
        refused registration leaves no user behind.
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
            if isinstance(error, ClientError | BotoCoreError | OSError):
                raise _refusal(error) from error
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
        except (ClientError, BotoCoreError, OSError) as error:
            if describe(error) in _TAKEN:
                raise Conflict("User already exists") from error
            raise _refusal(error) from error
        return str(answer["User"]["Username"])

    async def _remove(self, pool: dict[str, str], user_name: str) -> None:
        try:
            await self._client.admin_delete_user(**pool, Username=user_name)
        except (ClientError, BotoCoreError, OSError) as error:
            log.error("account.left_behind", user_id=user_name, reason=describe(error))

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


def _refusal(error: Exception) -> Exception:
    code = describe(error)
    if not isinstance(error, ClientError):
        if type(error).__name__ == "ParamValidationError":
            return CognitoRefused(f"Cognito refused the request: {code}")
        return AwsError(f"Cognito did not answer ({code})")
    if code in _PASSWORD:
        return Refused("Password does not meet requirements")
    return CognitoRefused(f"Cognito refused the request: {code}")


@asynccontextmanager
async def open_accounts(settings: CognitoSettings, storage: Storage) -> AsyncIterator[Accounts]:
    async with create_client("cognito-idp", region=settings.region) as client:
        yield Accounts(client, settings, storage)
