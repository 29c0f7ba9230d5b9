"""Connections that keep to a deadline, whatever the other end does."""

import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPResponse, RemoteDisconnected
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from signal_dispatch import crashpoints

# When the call that this thread makes must be over, on the monotonic clock.
_must_end: ContextVar[float] = ContextVar("signal_dispatch_must_end", default=math.inf)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let the calls that this thread makes within the block be over in so many seconds."""
    token = _must_end.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _must_end.reset(token)


def seconds_left(longest: float = math.inf) -> float:
    """Return the seconds until the deadline, ``longest`` at most; raises ``TimeoutError``."""
    left = min(_must_end.get() - time.monotonic(), longest)
    if left <= 0:
        raise TimeoutError("the deadline is over")
    return left


class StaleConnection(RemoteDisconnected):
    """A connection kept from an earlier call was closed before a byte of an answer came."""


class _TimedReader(io.RawIOBase):
    """Read from a socket, each time for no longer than the call has left."""

    def __init__(self, connection: Any, raw: io.RawIOBase) -> None:
        self._connection, self._raw = connection, raw
        self._longest = connection.gettimeout() or math.inf
        self._silent = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if _must_end.get() < math.inf:
            self._connection.settimeout(seconds_left(self._longest))
        try:
            got = self._raw.readinto(buffer)
        except ConnectionResetError as error:
            if self._silent:
                raise RemoteDisconnected(str(error)) from error
            raise
        self._silent = False
        return got

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # A timeout of the socket is for one read: a byte now and then would keep it content.
        self.fp = io.BufferedReader(_TimedReader(sock, self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _TimedResponse
    _answered = False

    def connect(self) -> None:
        self._answered = False
        super().connect()

    def send(self, data: Any) -> None:
        if self.sock is not None and _must_end.get() < math.inf:
            # Otherwise a large body would have to leave within the timeout for connecting.
            self.sock.settimeout(seconds_left())
        super().send(data)

    def getresponse(self) -> Any:
        crashpoints.reached("mid_request")
        try:
            response = super().getresponse()
        except RemoteDisconnected as error:
            if self._answered:
                raise StaleConnection(str(error)) from error
            raise
        self._answered = True
        return response


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class Adapter(HTTPAdapter):
    """Make connections that keep to the deadline; for http and https, and through proxies."""

    _pools = {"http": _Pool, "https": _TLSPool}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager
