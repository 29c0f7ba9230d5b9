"""The CRM's ports."""

import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    # A burst of calls must meet no full queue: that would look like being down.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about callers that went away."""


class Port:
    """A port of this machine that can refuse connections and still stays ours.

    Refusing is what a bound socket does that doesn't listen; were it closed instead, another
    process could get the port before we open it again. One thread at a time may switch it.
    """

    def __init__(self, number: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self._address = ("127.0.0.1", number)
        self._handler = handler
        self._thread: threading.Thread | None = None
        self._server = self._bind()

    def open(self) -> None:
        """Accept connections."""
        if self._thread is None:
            self._server.server_activate()
            self._thread = threading.Thread(
                target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Refuse connections."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
            self._server.server_close()
            self._server = self._bind()

    def _bind(self) -> _Server:
        server = _Server(self._address, self._handler, bind_and_activate=False)
        server.server_bind()
        return server
