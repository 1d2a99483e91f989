"""A web server that holds blobs like a registry, and cuts, lies, redirects and asks for passwords on demand.

What a real registry does is tested with a real one; this one does what none does on purpose.
"""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class SlyServer:
    """Serves blobs by digest, wherever in the path it stands; other paths by `pages`."""

    def __init__(
        self,
        blobs: Mapping[str, bytes],
        *,
        pages: Mapping[str, bytes] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.blobs = dict(blobs)
        self.pages = dict(pages or {})
        self.credentials: str | None = None
        self.cut_after_bytes: int | None = None
        self.cuts_left = 10**6
        self.refuses_ranges_after: int | None = None
        """After so many ranges served, further ones are answered with 503."""
        self.redirects: dict[str, str] = {}
        """From a part of a path to where it leads."""
        self.served: list[str] = []
        self.offsets: list[int] = []
        self.authorizations: list[str | None] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sly = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                sly.served.append(self.path)
                sly.authorizations.append(self.headers.get("Authorization"))
                for part, target in sly.redirects.items():
                    if part in self.path:
                        self._answer(307, {"Location": target.replace("$path", self.path)})
                        return
                if sly.credentials is not None and "/v2/" in self.path:
                    wanted = f"Basic {base64.b64encode(sly.credentials.encode()).decode()}"
                    if self.headers.get("Authorization") != wanted:
                        self._answer(401, {"WWW-Authenticate": 'Basic realm="closed"'})
                        return
                data = sly.pages.get(self.path) or next(
                    (blob for digest, blob in sly.blobs.items() if self.path.endswith(digest)), None
                )
                if data is None:
                    self._answer(404, {})
                    return
                self._send(data)

            def _send(self, data: bytes) -> None:
                text = self.headers.get("Range")
                offset = int(text.removeprefix("bytes=").rstrip("-")) if text else 0
                sly.offsets.append(offset)
                if offset and sly.refuses_ranges_after is not None:
                    if sly.refuses_ranges_after <= 0:
                        self._answer(503, {})
                        return
                    sly.refuses_ranges_after -= 1
                if offset >= len(data) > 0:
                    self._answer(416, {})
                    return
                self.send_response(206 if offset else 200)
                self.send_header("Content-Length", str(len(data) - offset))
                if offset:
                    self.send_header("Content-Range", f"bytes {offset}-{len(data) - 1}/{len(data)}")
                self.end_headers()
                rest = data[offset:]
                if sly.cut_after_bytes is not None and len(rest) > sly.cut_after_bytes and sly.cuts_left:
                    sly.cuts_left -= 1
                    rest = rest[: sly.cut_after_bytes]
                    self.close_connection = True
                with suppress(OSError):  # a client that has seen enough hangs up
                    self.wfile.write(rest)

            def _answer(self, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

        return Handler
