"""Other ends that keep a caller waiting: a black hole, a wire that drips, a proxy that dallies."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Serve = Callable[[socket.socket, threading.Event], None]

_PATIENCE = 30


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """Yield a port of 127.0.0.1 that answers no attempt to connect: its queue is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(8):
            caller = stack.enter_context(socket.socket())
            caller.settimeout(0.1)
            try:
                caller.connect(listening.getsockname())
            except TimeoutError:
                break
        yield listening.getsockname()[1]


@contextlib.contextmanager
def serving(serve: Serve) -> Iterator[int]:
    """Yield a port whose connections are given to ``serve``, each in a thread of its own."""
    closing = threading.Event()
    threads: list[threading.Thread] = []
    ends: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                near, _address = listening.accept()
            except OSError:
                return
            ends.append(near)
            thread = threading.Thread(target=one, args=(near,), daemon=True)
            threads.append(thread)
            thread.start()

    def one(near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            serve(near, closing)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield listening.getsockname()[1]
        closing.set()
        for end in [listening, *ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in [accepting, *threads]:
            thread.join(_PATIENCE)


@contextlib.contextmanager
def dripping(port: int, every: float, bytes_at_once: int = 1) -> Iterator[int]:
    """Yield a port that leads to another one, whose answers drip through it."""

    def serve(near: socket.socket, closing: threading.Event) -> None:
        with socket.create_connection(("127.0.0.1", port)) as far:
            there = threading.Thread(target=_pump, args=(near, far), daemon=True)
            there.start()
            while not closing.wait(every) and (data := far.recv(bytes_at_once)):
                near.sendall(data)
            _end(far)
            there.join(_PATIENCE)

    with serving(serve) as made:
        yield made


@contextlib.contextmanager
def proxy(
    answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n", *, pause: float = 0, every: float = 0
) -> Iterator[int]:
    """Yield the port of a proxy: after a pause it answers CONNECT, dripping, and then leads on."""

    def serve(near: socket.socket, closing: threading.Event) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += near.recv(65536)
        closing.wait(pause)
        at_once = 1 if every else len(answer)
        for position in range(0, len(answer), at_once):
            if closing.wait(every):
                return
            near.sendall(answer[position : position + at_once])
        if b" 200 " not in answer:
            # Closed with the rest of the request unread, it would reset the connection.
            near.shutdown(socket.SHUT_WR)
            while near.recv(65536):
                pass
            return
        host, _, port = asked.split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port))) as far:
            there = threading.Thread(target=_pump, args=(near, far), daemon=True)
            there.start()
            _pump(far, near)
            there.join(_PATIENCE)

    with serving(serve) as made:
        yield made


def never(near: socket.socket, closing: threading.Event) -> None:
    """Accept a connection, and say nothing."""
    closing.wait(_PATIENCE)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _end(sink)


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
