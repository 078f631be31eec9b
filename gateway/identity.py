"""The caller: the type that authentication makes and every feature reads."""

from dataclasses import dataclass
from typing import Final, Protocol

from common.storage.paths import is_user_name

USERS_GROUP: Final = "users"


_DESCRIPTIONS: Final = {"expired": "The token has expired", "malformed": "The token is malformed"}


class NotAuthenticated(Exception):
    """There is no usable token, or it is not valid; the message is for the caller.

    `reason` is one word for logs and metrics; `has_token` says whether a bearer token was sent.
    """

    def __init__(self, message: str, reason: str, *, has_token: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.has_token = has_token

    @property
    def challenge(self) -> str:
        """The value of `WWW-Authenticate` (RFC 6750, section 3)."""
        if not self.has_token:
            return "Bearer"
        description = _DESCRIPTIONS.get(self.reason, "The token does not hold")
        return f'Bearer error="invalid_token", error_description="{description}"'


class NotAllowed(Exception):
    """The caller is known but may not do this; the message is for the caller."""


@dataclass(frozen=True, slots=True)
class User:
    """The caller. `id` is the claim `cognito:username`, verbatim; the user's directory has it as
    its name. `mail_to` is where mails about its jobs go."""

    id: str
    email: str | None
    groups: tuple[str, ...]
    mail_to: str | None

    def check_may_enter(self) -> None:
        """Raise `NotAllowed` unless the user is in the users' group and can have a directory."""
        if USERS_GROUP not in self.groups:
            raise NotAllowed(f"Not a member of the '{USERS_GROUP}' group")
        if not is_user_name(self.id):
            raise NotAllowed("This user name cannot be the name of a directory")


class Verifier(Protocol):
    """Verifies credentials."""

    async def verify(self, token: str) -> User:
        """The user of a valid token. Raises `NotAuthenticated` for any other."""
        ...
