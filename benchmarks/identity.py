"""A user pool of our own: a key, what its key server answers, and a token."""

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


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A user with a token that is valid for the whole run, and the key that signs more."""

    user: str
    token: str
    key_set: dict[str, Any]
    key: rsa.RSAPrivateKey = field(repr=False)

    def token_of(self, user: str) -> str:
        """A token of another user of the pool."""
        return _sign(self.key, user)


def make_identity() -> Identity:
    """A fresh key pair, and a token signed with it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    shown = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    user = str(uuid.uuid4())
    return Identity(
        user=user,
        token=_sign(key, user),
        key_set={"keys": [{**shown, "kid": _KEY_ID, "alg": "RS256", "use": "sig"}]},
        key=key,
    )


def _sign(key: rsa.RSAPrivateKey, user: str) -> str:
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
    return jwt.encode(claims, key, "RS256", headers={"kid": _KEY_ID})
