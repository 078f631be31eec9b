"""Verification of Cognito ID tokens (RFC 7519, RS256 only)."""

import hashlib
import time
import unicodedata
from typing import Any, Final

import jwt

from gateway.auth.keys import KeySet
from gateway.identity import NotAuthenticated, User

_LEEWAY: Final = 10.0
"""Seconds by which clocks may differ."""

_REQUIRED: Final = ["iss", "aud", "exp", "token_use", "cognito:username"]
_CACHE_SECONDS: Final = 60.0
_CACHE_SIZE: Final = 10_000
_MAX_TOKEN: Final = 16_384

_MISSING: Final = "Not authenticated"
_WRONG: Final = "Not verified"

_REASONS: Final[dict[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "expired",
    jwt.InvalidAudienceError: "audience",
    jwt.InvalidIssuerError: "issuer",
    jwt.InvalidSignatureError: "signature",
}
"""Why a token of a known key does not hold; anything else is in its claims."""


class TokenVerifier:
    """Turns a token into a `User`; a verified token is cached for `_CACHE_SECONDS` at most."""

    def __init__(
        self, keys: KeySet, *, issuer: str, client_id: str, email_unverified: bool = True
    ) -> None:
        """`email_unverified`: mails go to addresses that the pool has not verified, too."""
        self._keys = keys
        self._email_unverified = email_unverified
        self._issuer = issuer
        self._client_id = client_id
        self._cache: dict[bytes, tuple[User, float]] = {}

    async def verify(self, token: str) -> User:
        """The user of a valid token.

        Raises `NotAuthenticated` for a malformed or invalid one, `KeysUnavailable` while there is
        no key to verify it with.
        """
        if not token.isascii() or len(token) > _MAX_TOKEN:
            raise NotAuthenticated(_MISSING, "malformed")
        digest = hashlib.sha256(token.encode()).digest()
        cached = self._cache.get(digest)
        now = time.time()
        if cached is not None and now < cached[1]:
            return cached[0]
        claims = await self._claims(token)
        user = _user(claims, email_unverified=self._email_unverified)
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        self._cache[digest] = (user, min(now + _CACHE_SECONDS, float(claims["exp"]) + _LEEWAY))
        return user

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            jwt.decode(token, options={"verify_signature": False})
        except (jwt.DecodeError, ValueError, RecursionError) as error:
            raise NotAuthenticated(_MISSING, "malformed") from error
        except jwt.PyJWTError as error:  # a critical header that we do not support
            raise NotAuthenticated(_WRONG, "malformed") from error
        key_id = header.get("kid")
        if header.get("alg") != "RS256":
            raise NotAuthenticated(_WRONG, "algorithm")
        key = await self._keys.find(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise NotAuthenticated(_WRONG, "unknown_key")
        try:
            return self._decode(token, key)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise NotAuthenticated(_WRONG, _REASONS.get(type(error), "claims")) from error

    def _decode(self, token: str, key: Any) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=["RS256"],
            audience=self._client_id,
            issuer=self._issuer,
            leeway=_LEEWAY,
            options={
                "require": _REQUIRED,
                "strict_aud": True,
                # PyJWT rejects those that are not text; this service does not read them
                "verify_sub": False,
                "verify_jti": False,
            },
        )
        kind, name = claims["token_use"], claims["cognito:username"]
        if kind != "id":
            raise NotAuthenticated(_WRONG, "not_id_token")
        if not isinstance(name, str):
            raise NotAuthenticated(_WRONG, "claims")
        return claims


def _user(claims: dict[str, Any], *, email_unverified: bool) -> User:
    groups = claims.get("cognito:groups")
    email = _address(claims.get("email"))
    verified = str(claims.get("email_verified", True)).lower() != "false"
    return User(
        id=claims["cognito:username"],
        email=email,
        groups=tuple(_clean(str(group)) for group in groups) if isinstance(groups, list) else (),
        mail_to=email if verified or email_unverified else None,
    )


def _address(claim: Any) -> str | None:
    """The claim if it can be an address: control characters could add headers to a mail."""
    if not isinstance(claim, str) or any(unicodedata.category(char) == "Cc" for char in claim):
        return None
    return _clean(claim) or None


def _clean(text: str) -> str:
    """Text that JSON and the database can hold. What is replaced is seen, so that no group passes
    for another."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
