"""Secrets of webhooks at rest: encrypted with a key that is derived from a setting."""

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PURPOSE: Final = b"opencloud webhook secrets"


class UnknownKey(Exception):
    """None of the keys opens the secret; the message is a sentence without a full stop."""


class SecretBox:
    """Seals with the first key; opens with any of them, so that keys can be replaced."""

    def __init__(self, keys: Sequence[str]) -> None:
        """`keys`: texts of any length, the newest first."""
        self._fernet = MultiFernet([Fernet(_derived(key)) for key in keys])

    def seal(self, secret: str) -> str:
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """Raises `UnknownKey`."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise UnknownKey("no WEBHOOK_KEY opens the webhook's secret") from error


def _derived(key: str) -> bytes:
    """A key of the length that Fernet takes (RFC 5869)."""
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(key.encode())
    return urlsafe_b64encode(derived)
