"""A real HTTP server on a loopback port that plays the remote API, by script."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from requests.structures import CaseInsensitiveDict


@dataclass(frozen=True)
class Received:
    """One request, as it came over the wire; ``connection`` counts from 1."""

    at: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    connection: int

    @property
    def json(self) -> Any:
        """Return the body read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Raw:
    """An answer written byte for byte, status line and all; then the connection is closed."""

    parts: Iterable[bytes] = ()


Answer = tuple[int, Mapping[str, str], bytes | Iterable[bytes]] | Raw
Script = Callable[[Received], Answer]

#: Close the connection without a byte of an answer.
HANG_UP = Raw()


class Receiver:
    """Record each request and answer as ``script`` says; a context manager.

    ``script`` may be replaced at any time. A body given as bytes has a ``Content-Length``; one
    given as an iterable is sent in chunks. With ``tls`` it is an https server.
    """

    def __init__(
        self, script: Script | None = None, *, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.script: Script = script or (lambda request: (200, {}, b"{}"))
        self.closing = threading.Event()
        self._requests: list[Received] = []
        self._arrived = threading.Condition()
        self._connections = 0
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.receiver = self
        self._server.tls = tls
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
        self.close()

    @property
    def port(self) -> int:
        """Return the port that the system gave."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Return the base URL, with a slash at its end."""
        return f"http{'s' if self._server.tls else ''}://127.0.0.1:{self.port}/"

    @property
    def requests(self) -> list[Received]:
        """Return what arrived so far, in order of arrival."""
        with self._arrived:
            return list(self._requests)

    @property
    def connections(self) -> int:
        """Return how many connections were made so far, with or without a request."""
        with self._arrived:
            return self._connections

    def reply(
        self,
        status: int = 200,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        **kwargs: Any,
    ) -> None:
        """Answer everything alike from now on; ``json=`` gives a body of JSON."""
        headers = dict(headers or {})
        if "json" in kwargs:
            body = json.dumps(kwargs["json"]).encode()
            headers.setdefault("Content-Type", "application/json")
        self.script = lambda request: (status, headers, body)

    def play(self, *answers: Answer) -> None:
        """Give these answers one after the other; the last one repeats."""
        waiting = list(answers)
        lock = threading.Lock()

        def script(request: Received) -> Answer:
            with lock:
                return waiting.pop(0) if len(waiting) > 1 else waiting[0]

        self.script = script

    def wait_for(self, count: int, timeout: float = 10) -> list[Received]:
        """Wait until so many requests arrived, and return them all."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self._requests) >= count, timeout):
                raise AssertionError(
                    f"{count} requests expected within {timeout} s, {len(self._requests)} came: "
                    f"{[(r.method, r.path) for r in self._requests]}"
                )
            return list(self._requests)

    def wait(self, seconds: float) -> None:
        """Let a script wait; ends early when the receiver closes."""
        self.closing.wait(seconds)

    def hold(self, until: threading.Event, timeout: float = 30) -> None:
        """Let a script wait for an event of the test; ends early when the receiver closes."""
        end = time.monotonic() + timeout
        while not until.wait(0.02) and not self.closing.is_set() and time.monotonic() < end:
            pass

    def drip(self, content: bytes, every: float) -> Iterable[bytes]:
        """Yield byte after byte, with a wait between; ends early when the receiver closes."""
        for position in range(len(content)):
            if self.closing.wait(every):
                return
            yield content[position : position + 1]

    def close(self) -> None:
        """End every script that waits, and stop listening; harmless when repeated."""
        self.closing.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(10)
        self._server.server_close()

    def count_connection(self) -> int:
        """Return the number of a connection that was just made."""
        with self._arrived:
            self._connections += 1
            return self._connections

    def record(self, request: Received) -> None:
        """Keep a request and tell those who wait."""
        with self._arrived:
            self._requests.append(request)
            self._arrived.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a kept connection would hold up the end of the test
    request_queue_size = 128
    receiver: Receiver
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the thread of the connection: it may take its time."""
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        with request:
            super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients that give up are part of what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.number = self.server.receiver.count_connection()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Write nothing: the requests are recorded."""

    def answer(self) -> None:
        """Record the request and play what the script gives."""
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # whoever sent it was killed in the middle
            self.close_connection = True
            return
        received = Received(
            at=time.monotonic(),
            method=self.command,
            path=self.path,
            headers=CaseInsensitiveDict(self.headers.items()),
            body=body,
            connection=self.number,
        )
        self.server.receiver.record(received)
        answer = self.server.receiver.script(received)
        if isinstance(answer, Raw):
            self.close_connection = True
            for part in answer.parts:
                self.wfile.write(part)
        else:
            self._write(*answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the base's

    def _write(
        self, status: int, headers: Mapping[str, str], body: bytes | Iterable[bytes]
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if isinstance(body, bytes):
            if status != 204 and "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in body:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")
