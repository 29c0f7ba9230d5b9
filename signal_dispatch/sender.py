"""One HTTP call: bounded in time and bytes, and its failures told in sentences without secrets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import requests
from requests.structures import CaseInsensitiveDict
from urllib3.util import Timeout

import signal_dispatch
from signal_dispatch import decoding
from signal_dispatch.deadlines import deadline, seconds_left
from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import EndpointNotMocked
from signal_dispatch.outcomes import Response, causes, explain
from signal_dispatch.wire import StaleConnection

#: Asked before each call: under test it turns the session away from the network, or raises
#: ``EndpointNotMocked``.
network_guard: Callable[[Endpoint, requests.Session], None] | None = None


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
    """Make the call within ``DEADLINE``; raises ``SendError`` where no answer came."""
    if network_guard is not None:
        network_guard(endpoint, session)
    try:
        with deadline(endpoint.deadline):
            return _send_again_if_stale(call, endpoint, session)
    except EndpointNotMocked:
        raise
    except Exception as error:  # noqa: BLE001 - requests lets errors of urllib3 and codecs through
        # The cause is left out: its text may hold the URL and headers.
        raise explain(error, endpoint.host) from None


def _send_again_if_stale(call: Call, endpoint: Endpoint, session: requests.Session) -> Response:
    try:
        return _exchange(call, endpoint, session)
    except requests.ConnectionError as error:
        if not any(isinstance(cause, StaleConnection) for cause in causes(error)):
            raise
    return _exchange(call, endpoint, session)


def _exchange(call: Call, endpoint: Endpoint, session: requests.Session) -> Response:
    request = requests.Request(call.method, call.url, dict(call.headers), data=call.body or None)
    request.auth = endpoint.get_auth()
    prepared = session.prepare_request(request)
    timeout: Any = Timeout(seconds_left(), *endpoint.timeout)
    # Left unread, a body closes its connection when the block ends: it is never drained.
    with session.send(prepared, stream=True, allow_redirects=False, timeout=timeout) as answer:
        return _read(answer, endpoint)


def _read(answer: requests.Response, endpoint: Endpoint) -> Response:
    content, limit = bytearray(), endpoint.max_response_bytes
    for piece in decoding.content_of(answer, limit):
        content += piece
        seconds_left()
    return Response.from_answer(
        answer, bytes(content[:limit]), truncated=len(content) > limit, redact=endpoint.redact
    )
