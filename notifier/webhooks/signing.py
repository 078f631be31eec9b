"""Signatures of Standard Webhooks 1.0 (https://www.standardwebhooks.com), symmetric ones."""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256

_PREFIX = "whsec_"


def sign(secrets: Sequence[str], message: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt; `timestamp` in seconds since the epoch.

    Each secret (`whsec_…`) makes a signature, so that a receiver verifies with any of them.
    """
    signed = f"{message}.{timestamp}.".encode() + body
    keys = [b64decode(secret.removeprefix(_PREFIX)) for secret in secrets]
    signatures = [b64encode(hmac.digest(key, signed, sha256)).decode() for key in keys]
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
