"""A key server."""

import json
from typing import Self

from devtools.user_pool import Issuer
from tests.support.local_server import LocalServer


class KeyServer(LocalServer):
    """Serves a pool's public keys, counts the requests, can be down, and can hang until it ends."""

    def __init__(self, *issuers: Issuer, port: int = 0) -> None:
        self.keys = [issuer.jwk for issuer in issuers]
        self.is_down = False
        super().__init__(port)
        self.url += "/jwks.json"

    def answer(self, *_: object) -> tuple[int, str, bytes]:
        return 503 if self.is_down else 200, "", json.dumps({"keys": self.keys}).encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
