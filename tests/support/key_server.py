"""A key server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from devtools.user_pool import Issuer


class KeyServer:
    """Serves a pool's public keys, counts the requests, can be down, and can hang until it ends."""

    def __init__(self, *issuers: Issuer, port: int = 0) -> None:
        self.keys = [issuer.jwk for issuer in issuers]
        self.asked = 0
        self.is_down = False
        self.hangs = False
        self._ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                if outer.hangs:
                    outer._ended.wait()
                    return
                body = json.dumps({"keys": outer.keys}).encode()
                self.send_response(503 if outer.is_down else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
