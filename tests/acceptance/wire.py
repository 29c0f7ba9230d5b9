"""A port that leads to a server, and can be cut or freeze: it is gone for one process."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Wire:
    """Forward connections from a loopback port to an address; a context manager.

    ``cut()`` ends all connections and refuses new ones, ``mend()`` takes them again. ``freeze()``
    lets connections be made, and nothing through, until ``thaw()``.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener: socket.socket | None = None
        self._ends: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self.port = 0

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cut()

    def mend(self) -> None:
        """Take connections, on the same port as before."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._run(self._accept, listener)

    def cut(self) -> None:
        """End every connection and refuse new ones; returns when all is ended."""
        self.thaw()
        listener, self._listener = self._listener, None
        if listener is not None:
            _end(listener)
        with self._lock:
            for end in self._ends:
                _end(end)
        while self._threads:
            self._threads.pop().join(10)

    def freeze(self) -> None:
        """Hold back whatever comes, in both directions."""
        self._flows.clear()

    def thaw(self) -> None:
        """Let through what was held back, and all that comes."""
        self._flows.set()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    near, _address = listener.accept()
                except OSError:
                    return
                far = socket.create_connection(self._target)
                with self._lock:
                    self._ends |= {near, far}
                    if self._listener is not listener:  # cut in between
                        _end(near)
                        _end(far)
                self._run(self._join, near, far)

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        back = self._run(self._pump, far, near)
        self._pump(near, far)
        back.join(10)
        with self._lock:
            self._ends -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        _end(source)
        _end(sink)

    def _run(self, work: object, *arguments: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)
        return thread


def _end(end: socket.socket) -> None:
    """Wake whoever waits at it."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
