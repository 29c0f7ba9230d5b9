"""Connections that keep to a deadline, whatever the other end does."""

import math
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from http.client import RemoteDisconnected
from typing import Any, Final

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from signal_dispatch import crashpoints, log_masking
from signal_dispatch.addresses import is_public
from signal_dispatch.deadlines import has_deadline, seconds_left
from signal_dispatch.exceptions import SendError
from signal_dispatch.reading import BoundedResponse
from signal_dispatch.resolving import Address, resolve

#: Longer bodies are not worth a copy.
_JOINED_BYTES: Final = 16 * 1024
NOT_PUBLIC: Final = (
    "{} leads to an address that is not public, and ALLOW_PRIVATE_ADDRESSES is False."
)


log_masking.install()


class StaleConnection(RemoteDisconnected):
    """A connection kept from an earlier call was closed before a byte of an answer came."""


class _Connection(HTTPConnection):
    response_class = BoundedResponse
    _answered = False
    #: A body that is to leave together with the head.
    _body = b""

    def connect(self) -> None:
        self._answered = False
        super().connect()

    def _new_conn(self) -> socket.socket:
        # urllib3's one hook for where a connection's socket comes from, and underscored. Its own
        # resolves names without any limit of time. tests/test_wire.py notices when it is gone.
        try:
            made = self._connected(self._addresses())
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no connection in time") from error
        except OSError as error:
            raise NewConnectionError(self, "no connection") from error
        sys.audit("http.client.connect", self, self.host, self.port)
        return made

    def _addresses(self) -> list[Address]:
        # With the dot at its end, if there is one: it keeps the system's search list out.
        return resolve(self._dns_host, self.port, seconds_left())

    def _connected(self, addresses: list[Address]) -> socket.socket:
        """Connect to the first address that takes it; none uses up the time of the others."""
        for left in range(len(addresses), 1, -1):
            with suppress(OSError):
                return self._connected_to(addresses[-left], seconds_left() / left)
        return self._connected_to(addresses[-1], seconds_left())

    def _connected_to(self, address: Address, seconds: float) -> socket.socket:
        family, sockaddr = address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            self._limit(sock, seconds)
            sock.connect(sockaddr)
            self._limit(sock)  # for what follows, which may be the handshake of TLS
        except BaseException:
            sock.close()
            raise
        return sock

    def _limit(self, sock: Any, longest: float = math.inf) -> None:
        """Let the next step of making a connection take no longer than there is time for it."""
        seconds = seconds_left(min(longest, self.timeout or math.inf))
        sock.settimeout(None if seconds == math.inf else seconds)

    def _tunnel(self) -> None:
        # http.client's, and underscored: it asks a proxy for the way to the host. A proxy that
        # drips would use up the time of the handshake that follows. tests/test_wire.py notices
        # when it is called no more.
        host = self._tunnel_host  # forgotten when the connection is closed
        try:
            super()._tunnel()
        except OSError as error:
            refusal = _refused_tunnel(error, host)
            if refusal is None:
                raise
            raise refusal from error
        self._limit(self.sock)

    def request(
        self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any
    ) -> None:
        """Send the request; a small body leaves in one packet with the head, its length is known.

        So the remote is woken once, and this thread gives up the interpreter's lock once.
        """
        joins = type(body) is bytes and 0 < len(body) <= _JOINED_BYTES
        if joins and headers and "Content-Length" in headers and not options.get("chunked"):
            self._body, body = body, None
        try:
            super().request(method, url, body, headers, **options)
        finally:  # where no head could be written, the next one must not take this body along
            self._body = b""

    def send(self, data: Any) -> None:
        if self._body:
            data, self._body = data + self._body, b""
        if self.sock is not None and has_deadline():
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


def _refused_tunnel(error: OSError, host: Any) -> SendError | None:
    """Read the proxy's status from the words of http.client, the one place where it stands."""
    status = re.search(r"failed: (\d{3})\b", str(error)) if type(error) is OSError else None
    if status is None:
        return None
    return SendError("connect", f"The proxy on the way to {host} answered {status[1]}.")


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Guard(_Connection):
    """Connect to public addresses only: to those that were looked at, for nothing asks again."""

    def _addresses(self) -> list[Address]:
        addresses = super()._addresses()
        # A proxy is of the operator's own choice, and it is the proxy that resolves the host.
        if self.proxy is None and not all(is_public(sockaddr[0]) for _, sockaddr in addresses):
            raise SendError("address", NOT_PUBLIC.format(self.host))
        return addresses


class _GuardedConnection(_Guard, _Connection):
    pass


class _GuardedTLSConnection(_Guard, _TLSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _GuardedPool(HTTPConnectionPool):
    ConnectionCls = _GuardedConnection


class _GuardedTLSPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedTLSConnection


#: By scheme, as urllib3's pool manager wants them.
POOLS: Final[Mapping[str, Any]] = {"http": _Pool, "https": _TLSPool}
#: The same for public addresses only.
GUARDED_POOLS: Final[Mapping[str, Any]] = {"http": _GuardedPool, "https": _GuardedTLSPool}
