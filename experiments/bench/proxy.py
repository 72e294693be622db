"""A proxy that holds back every request: ``python -m experiments.bench.proxy PORT SECONDS``."""

from __future__ import annotations

import socket
import sys
import threading
import time


class SlowProxy:
    """Passes connections on to a server on loopback, and holds back what is sent to it.

    Args:
        port: The server's.
        delay: Seconds for each request.

    Attributes:
        uri: Where the proxy answers.
    """

    def __init__(self, port: int, delay: float) -> None:
        self._target, self._delay = port, delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Serve until the process is ended."""
        self._thread.join()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            threading.Thread(target=_pump, args=(client, server, self._delay), daemon=True).start()
            threading.Thread(target=_pump, args=(server, client, 0.0), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, delay: float) -> None:
    try:
        while data := source.recv(65536):
            time.sleep(delay)
            sink.sendall(data)
    except OSError:
        pass
    finally:
        sink.close()


if __name__ == "__main__":
    proxy = SlowProxy(int(sys.argv[1]), float(sys.argv[2]))
    sys.stdout.write(f"{proxy.uri}\n")
    sys.stdout.flush()
    proxy.wait()
