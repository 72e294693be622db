"""A proxy in front of a real server that answers some requests itself, as gateways, login pages and full disks do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


@dataclass(frozen=True)
class Fault:
    """An answer in place of the server's.

    Attributes:
        status: HTTP status; 0 closes the connection without an answer.
        body: What it says.
        headers: More headers.
        cut: The server is asked, and half of its answer is passed on.
    """

    status: int = 0
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


class FaultyProxy:
    """Passes requests on to a server on loopback, except where ``decide`` gives a fault.

    Args:
        port: The server's.

    Attributes:
        uri: Where the proxy answers.
        decide: Is called with method, path and body of each request.
        asked: How many requests came.
    """

    def __init__(self, port: int) -> None:
        self.decide: Callable[[str, str, bytes], Fault | None] = lambda *_: None
        self.asked = 0
        handler = type("Handler", (_Handler,), {"proxy": self, "port": port})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Take no more requests."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    port: int
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.proxy.asked += 1
        fault = self.proxy.decide(self.command, self.path, body)
        if fault is not None and not fault.cut:
            if not fault.status:
                self.connection.close()
                self.close_connection = True
                return
            self._answer(fault.status, fault.headers, fault.body.encode())
            return
        passed_on = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        passed_on.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
        answer = passed_on.getresponse()
        content = answer.read()
        named = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
        self._answer(answer.status, named, content, cut=fault is not None)
        passed_on.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) + cut))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
