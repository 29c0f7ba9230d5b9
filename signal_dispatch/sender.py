"""One HTTP call: bounded in time and bytes, and its failures told in sentences without secrets."""

import io
import math
import os
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from http.client import HTTPResponse, RemoteDisconnected
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlencode

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import Timeout

import signal_dispatch
from signal_dispatch import crashpoints
from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import EndpointNotMocked
from signal_dispatch.outcomes import Response, causes, explain

#: Asked before each call: under test it turns the session away from the network, or raises
#: ``EndpointNotMocked``.
network_guard: Callable[[Endpoint, requests.Session], None] | None = None

_CHUNK_BYTES = 8 * 1024  # small: an old urllib3 inflates a whole chunk at once, a thousandfold
# When the call that this thread makes must be over, on the monotonic clock.
_must_end: ContextVar[float] = ContextVar("signal_dispatch_must_end", default=math.inf)


@dataclass(frozen=True, slots=True)
class Call:
    """What goes on the wire. Only method and uid are shown: all else may hold a secret."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    uid: str


def build_call(
    endpoint: Endpoint, *, method: str, path: str, headers: Mapping[str, str], body: bytes, uid: str
) -> Call:
    """Put together what the endpoint adds and what the delivery stored."""
    merged = CaseInsensitiveDict(endpoint.headers)
    merged.update(headers)
    merged.setdefault("User-Agent", f"django-signal-dispatch/{signal_dispatch.__version__}")
    if method not in ("GET", "HEAD"):
        merged["Idempotency-Key"] = uid
    url = endpoint.join(path)
    if endpoint.query:
        url += ("&" if "?" in url else "?") + urlencode(endpoint.query)
    return Call(method=method, url=url, headers=dict(merged.items()), body=body, uid=uid)


def send(call: Call, endpoint: Endpoint, session: requests.Session) -> Response:
    """Make the call within ``DEADLINE``, the look-up of the name apart; raises ``SendError``."""
    if network_guard is not None:
        network_guard(endpoint, session)
    token = _must_end.set(time.monotonic() + endpoint.deadline)
    try:
        return _send_again_if_stale(call, endpoint, session)
    except EndpointNotMocked:
        raise
    except Exception as error:  # noqa: BLE001 - requests lets errors of urllib3 and codecs through
        # The cause is left out: its text may hold the URL and headers.
        raise explain(error, endpoint.host) from None
    finally:
        _must_end.reset(token)


def _send_again_if_stale(call: Call, endpoint: Endpoint, session: requests.Session) -> Response:
    try:
        return _exchange(call, endpoint, session)
    except requests.ConnectionError as error:
        if not any(isinstance(cause, _StaleConnection) for cause in causes(error)):
            raise
    return _exchange(call, endpoint, session)


def _exchange(call: Call, endpoint: Endpoint, session: requests.Session) -> Response:
    request = requests.Request(call.method, call.url, dict(call.headers), data=call.body or None)
    request.auth = endpoint.get_auth()
    prepared = session.prepare_request(request)
    timeout: Any = Timeout(_seconds_left(), *endpoint.timeout)
    # Left unread, a body closes its connection when the block ends: it is never drained.
    with session.send(prepared, stream=True, allow_redirects=False, timeout=timeout) as answer:
        return _read(answer, endpoint.max_response_bytes)


def _read(answer: requests.Response, limit: int) -> Response:
    content = bytearray()
    for chunk in answer.iter_content(_CHUNK_BYTES):
        content += chunk
        if len(content) > limit:
            break
        _seconds_left()
    return Response.from_answer(answer, bytes(content[:limit]), truncated=len(content) > limit)


def _seconds_left(longest: float = math.inf) -> float:
    left = min(_must_end.get() - time.monotonic(), longest)
    if left <= 0:
        raise TimeoutError("the deadline is over")
    return left


class SessionCache:
    """The sessions of one thread, one for each endpoint, so that connections are kept alive."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[int, str], tuple[Endpoint, requests.Session]] = {}

    def get(self, endpoint: Endpoint) -> requests.Session:
        """Return its session, a new one after a change or a fork; raises ``SendError``."""
        # Two processes that write to one connection would garble both their calls.
        key = (os.getpid(), endpoint.alias)
        if key in self._sessions:
            known, session = self._sessions[key]
            if known == endpoint:
                return session
            session.close()
        try:
            session = new_session(endpoint)
        except Exception as error:  # noqa: BLE001 - a factory is anybody's code
            raise explain(error, endpoint.host) from None
        self._sessions[key] = (endpoint, session)
        return session

    def close(self) -> None:
        """Close every connection; the cache may be used again."""
        for _, session in self._sessions.values():
            session.close()
        self._sessions.clear()


def new_session(endpoint: Endpoint) -> requests.Session:
    """Make a session that follows the endpoint's settings: no environment, cookies, redirects.

    A factory's own adapters stay; on them the deadline is judged between chunks only.
    """
    factory = endpoint.load("SESSION") if endpoint.session else requests.Session
    session: requests.Session = factory()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # Even where it follows no redirect, requests reads its whole body to prepare the next call.
    session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]
    session.verify = session.verify if endpoint.verify is True else endpoint.verify
    session.cert = endpoint.cert or session.cert
    session.proxies.update(endpoint.proxies)
    for prefix, adapter in list(session.adapters.items()):
        if type(adapter) is HTTPAdapter:
            session.mount(prefix, _Adapter(pool_connections=2, pool_maxsize=1))
    return session


class _StaleConnection(RemoteDisconnected):
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
            self._connection.settimeout(_seconds_left(self._longest))
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
            self.sock.settimeout(_seconds_left())
        super().send(data)

    def getresponse(self) -> Any:
        crashpoints.reached("mid_request")
        try:
            response = super().getresponse()
        except RemoteDisconnected as error:
            if self._answered:
                raise _StaleConnection(str(error)) from error
            raise
        self._answered = True
        return response


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    _pools = {"http": _Pool, "https": _TLSPool}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager
