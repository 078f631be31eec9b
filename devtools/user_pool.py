"""A Cognito user pool: a key, the key server's response, and tokens."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

REGION: Final = "eu-central-1"
POOL: Final = "eu-central-1_Benchmark"
CLIENT: Final = "benchmark-client"
INTERNAL_KEY: Final = "benchmark-internal-key"

_KEY_ID: Final = "benchmark-key"
_LIFETIME: Final = 12 * 3600


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class UserPool:
    """A pool with a key of its own; `user` is its first user."""

    user: str = field(default_factory=lambda: str(uuid.uuid4()))
    _key: rsa.RSAPrivateKey = field(default_factory=_new_key, repr=False)

    @property
    def key_set(self) -> dict[str, Any]:
        """The JWKS document (RFC 7517)."""
        shown = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**shown, "kid": _KEY_ID, "alg": "RS256", "use": "sig"}]}

    def token(self, user: str) -> str:
        """An ID token that outlasts the run."""
        now = int(time.time())
        claims = {
            "iss": f"https://cognito-idp.{REGION}.amazonaws.com/{POOL}",
            "aud": CLIENT,
            "token_use": "id",
            "iat": now,
            "exp": now + _LIFETIME,
            "sub": str(uuid.uuid4()),
            "cognito:username": user,
            "cognito:groups": ["users"],
            "email": "user@example.com",
        }
        return jwt.encode(claims, self._key, "RS256", headers={"kid": _KEY_ID})

    def headers(self, user: str) -> dict[str, str]:
        """The headers of a user's requests."""
        return {"Authorization": f"Bearer {self.token(user)}"}
