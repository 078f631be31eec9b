"""A small HTTP server in a thread, for what a service asks while its event loop is busy."""

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LocalServer:
    """Answers GET requests as `answer` says, counts them, and while it `hangs` answers none."""

    def __init__(self, port: int = 0) -> None:
        self.asked = 0
        self.hangs = False
        self._closed = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                if outer.hangs:
                    outer._closed.wait()
                    return
                status, etag, body = outer.answer(self.path, self.headers)
                self.send_response(status)
                self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        """Status, ETag and body."""
        raise NotImplementedError

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
