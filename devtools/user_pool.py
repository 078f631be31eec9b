"""A Cognito user pool: a key, ID tokens signed with it, and the settings that trust them."""

import time
import uuid
from functools import cached_property
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

REGION: Final = "eu-central-1"
POOL: Final = "eu-central-1_Testing00"
CLIENT: Final = "test-client"
INTERNAL_KEY: Final = "internal-key-for-tests"
USER: Final = "ada"

_LIFETIME: Final = 12 * 3600  # longer than any run


class Issuer:
    """Signs ID tokens as the user pool does."""

    def __init__(self, kid: str = "first-key") -> None:
        self.kid = kid
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @cached_property
    def jwk(self) -> dict[str, Any]:
        """The public key (RFC 7517)."""
        shown = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {**shown, "kid": self.kid, "alg": "RS256", "use": "sig"}

    def claims(self, user: str, **changes: Any) -> dict[str, Any]:
        """The claims of a valid ID token; `...` as a value drops the claim."""
        now = int(time.time())
        found = {
            "iss": f"https://cognito-idp.{REGION}.amazonaws.com/{POOL}",
            "aud": CLIENT,
            "token_use": "id",
            "exp": now + _LIFETIME,
            "iat": now,
            "sub": str(uuid.uuid4()),
            "cognito:username": user,
            "cognito:groups": ["users"],
            "email": f"{uuid.uuid4().hex[:8]}@example.com",
        }
        found |= {name.replace("__", ":"): value for name, value in changes.items()}
        return {name: value for name, value in found.items() if value is not ...}

    def token(self, user: str, *, kid: str | None = None, **changes: Any) -> str:
        return self.sign(self.claims(user, **changes), kid=kid)

    def sign(self, claims: dict[str, Any], *, kid: str | None = None) -> str:
        return jwt.encode(claims, self.key, "RS256", headers={"kid": kid or self.kid})

    def headers(self, user: str) -> dict[str, str]:
        """The headers of a user's requests."""
        return {"Authorization": f"Bearer {self.token(user)}"}


def trust(keys_url: str) -> dict[str, str]:
    """Settings for services that accept the pool's tokens and `INTERNAL_KEY`."""
    return {
        "COGNITO_CLIENT_ID": CLIENT,
        "COGNITO_USER_POOL_ID": POOL,
        "COGNITO_JWKS_URL": keys_url,
        "INTERNAL_API_KEY_SECRET": INTERNAL_KEY,
    }
