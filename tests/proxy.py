"""A proxy on a loopback port: forwards plain HTTP, and tunnels what CONNECT asks for."""

import base64
import select
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


class Proxy:
    """Record the request lines that came, and refuse whoever has not the right name and password.

    A context manager. ``targets`` maps a host that is asked for to the port of this machine where
    it is played; without it the host itself is called.
    """

    def __init__(self, user: str = "", *, targets: Mapping[str, int] | None = None) -> None:
        self.lines: list[str] = []
        self.targets = targets or {}
        self.expected = f"Basic {base64.b64encode(user.encode()).decode()}" if user else ""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    @property
    def host(self) -> str:
        """Return host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def connect(self, host: str | None, port: int) -> socket.socket:
        """Return a connection to a target."""
        address = ("127.0.0.1", self.targets[host]) if host in self.targets else (host, port)
        return socket.create_connection(address, timeout=10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    proxy: Proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: tests look at the client."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Write nothing: the lines are recorded."""

    def do_CONNECT(self) -> None:
        """Carry bytes to and fro until one of both hangs up."""
        if not self._admitted():
            return
        host, _, port = self.path.rpartition(":")
        with self.server.proxy.connect(host, int(port)) as target:
            self.send_response(200)
            self.end_headers()
            while True:
                ready, _, _ = select.select([self.connection, target], [], [], 10)
                for one in ready:
                    other = target if one is self.connection else self.connection
                    data = one.recv(65536)
                    if not data:
                        self.close_connection = True
                        return
                    other.sendall(data)
                if not ready:
                    return

    def do_POST(self) -> None:
        """Pass one request on, and its answer back."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._admitted():
            return
        parts = urlsplit(self.path)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        head = [f"{self.command} {target} HTTP/1.1", "Connection: close"]
        head += [
            f"{name}: {value}"
            for name, value in self.headers.items()
            if name.lower() not in ("connection", "proxy-authorization")
        ]
        with self.server.proxy.connect(parts.hostname, parts.port or 80) as upstream:
            upstream.sendall("\r\n".join([*head, "", ""]).encode() + body)
            while data := upstream.recv(65536):
                self.wfile.write(data)
        self.close_connection = True

    def _admitted(self) -> bool:
        proxy = self.server.proxy
        proxy.lines.append(self.requestline)
        if self.headers.get("Proxy-Authorization", "") == proxy.expected:
            return True
        self.send_response(407)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False
