"""A proxy in front of a real server that answers some requests wrongly, as a script says."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOGIN = b"<!doctype html><html><head><title>Sign in</title></head><body><form>Sign in</form></body></html>"
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "host"}


@dataclass(frozen=True)
class Fault:
    """What is done with a request.

    Attributes:
        status: The HTTP status that is answered.
        body: The body that is answered.
        headers: More headers.
        kind: ``answer`` gives this answer; ``drop`` closes the connection; ``cut`` sends half of the real answer;
            ``slow`` waits first.
        is_served: The real server gets the request first.
        seconds: To wait.
    """

    status: int = 500
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "answer"
    is_served: bool = False
    seconds: float = 0.0


Script = Callable[[str, str, int], "Fault | None"]  # method, path, number of the request -> what is done


class Proxy:
    """Listens on a port of loopback.

    Args:
        port: The real server's.

    Attributes:
        uri: The address.
        requests: How many requests came since :meth:`play`.
        faults: How many of them were answered wrongly.
    """

    def __init__(self, port: int) -> None:
        self.requests = self.faults = 0
        self._port = port
        self._script: Script = lambda method, path, number: None
        self._mutex = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def play(self, script: Script) -> None:
        """Answer by a script from now on, counting requests from 0."""
        with self._mutex:
            self._script, self.requests, self.faults = script, 0, 0

    def be_well(self) -> None:
        """Pass everything on from now on."""
        self.play(lambda method, path, number: None)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str, path: str) -> Fault | None:
        """What to do with a request."""
        with self._mutex:
            fault = self._script(method, path, self.requests)
            self.requests += 1
            self.faults += fault is not None
            return fault

    def forward(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Ask the real server."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        passed = {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
        connection.request(method, path, body, passed)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), data


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        with suppress(OSError):  # the client has gone
            self._answer()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = self._chunks()
        fault = self.proxy.fault(self.command, self.path.partition("?")[0])
        if fault is not None:
            time.sleep(fault.seconds)
        real = None
        if fault is None or fault.is_served or fault.kind in ("cut", "slow"):
            real = self.proxy.forward(self.command, self.path, self.headers, body)
        if fault is None or fault.kind == "slow":
            assert real is not None
            self._send(*real)
        elif fault.kind == "drop":
            self.close_connection = True
        elif fault.kind == "cut":
            assert real is not None
            self._send(*real, cut=True)
        else:
            self._send(fault.status, list(fault.headers), fault.body)

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
