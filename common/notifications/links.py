"""Links that stop a user's mails without a log-in.

A token is a Fernet token (AES and HMAC-SHA256) of the user's id, which is often an e-mail address
and so not to be read in a link. It holds for ever, as a mail that is years old has to.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

UNSUBSCRIBE_PATH: Final = "/notifications/unsubscribe"

_PURPOSE: Final = b"opencloud: links that unsubscribe"


class UnknownLink(Exception):
    """The token is not one of ours, or it is damaged."""


class UnsubscribeLinks:
    """Signs with the first key; accepts the signatures of all, so that keys can be replaced."""

    def __init__(self, keys: Sequence[str]) -> None:
        """`keys` are secrets of any form, at least one."""
        self._fernet = MultiFernet([Fernet(_derived(key)) for key in keys])

    def token(self, user_id: str) -> str:
        """The token of a user, of characters that a URL may hold as they are."""
        return self._fernet.encrypt(user_id.encode("utf-8", "surrogatepass")).decode().rstrip("=")

    def user_of(self, token: str) -> str:
        """The user for whom a token was made. Raises `UnknownLink`."""
        padded = token + "=" * (-len(token) % 4)
        try:
            decoded = base64.b64decode(padded, altchars=b"-_", validate=True)
            if base64.urlsafe_b64encode(decoded).decode() != padded:
                raise UnknownLink  # other characters that decode to the same bytes
            return self._fernet.decrypt(padded).decode("utf-8", "surrogatepass")
        except (binascii.Error, ValueError, InvalidToken) as error:
            raise UnknownLink from error

    def url(self, public_url: str, user_id: str) -> str:
        """The link, to the gateway at `public_url`."""
        return f"{public_url}{UNSUBSCRIBE_PATH}?t={self.token(user_id)}"


def _derived(key: str) -> bytes:
    """A key for this purpose alone: the secret may have others."""
    digest = hmac.digest(key.encode("utf-8", "surrogateescape"), _PURPOSE, hashlib.sha256)
    return base64.urlsafe_b64encode(digest)
