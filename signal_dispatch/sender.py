"""One HTTP call: bounded in time and bytes, and its failures told in sentences without secrets."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import requests
from requests.structures import CaseInsensitiveDict
from urllib3.util import Timeout

import signal_dispatch
from signal_dispatch import decoding
from signal_dispatch.credentials import ERROR_CLASS, Auth, Credentials
from signal_dispatch.deadlines import deadline, seconds_left
from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import EndpointNotMocked, SendError
from signal_dispatch.failures import causes, explain
from signal_dispatch.outcomes import Response
from signal_dispatch.signing import sign
from signal_dispatch.wire import StaleConnection

#: Asked before each call: under test it turns the session away from the network, or raises
#: ``EndpointNotMocked``.
network_guard: Callable[[Endpoint, requests.Session], None] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What a delivery brings to the wire. Only method and uid are shown: the rest is private."""

    method: str
    path: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    uid: str


def headers_of(call: Call, added: Mapping[str, str]) -> CaseInsensitiveDict[str]:
    """Return the call's headers with those that its endpoint adds; the call's own win."""
    merged = CaseInsensitiveDict(added)
    merged.update(call.headers)
    merged.setdefault("User-Agent", f"django-signal-dispatch/{signal_dispatch.__version__}")
    if call.method not in ("GET", "HEAD"):
        merged["Idempotency-Key"] = call.uid
    return merged


def url_of(call: Call, endpoint: Endpoint, added: Sequence[tuple[str, str]]) -> str:
    """Return the call's URL, with the parameters that its endpoint adds at the end."""
    url = endpoint.join(call.path)
    return url + ("&" if "?" in url else "?") + urlencode(added) if added else url


def send(call: Call, endpoint: Endpoint, session: requests.Session) -> Response:
    """Make the call within ``DEADLINE``; raises ``SendError`` where no answer came."""
    if network_guard is not None:
        network_guard(endpoint, session)
    try:
        with deadline(endpoint.deadline):
            return _send_again_if_stale(call, _credentials(endpoint), endpoint, session)
    except EndpointNotMocked:
        raise
    except Exception as error:  # noqa: BLE001 - requests lets errors of urllib3 and codecs through
        # The cause is left out: its text may hold the URL and headers.
        raise explain(error, endpoint.host) from None


def _credentials(endpoint: Endpoint) -> Credentials:
    """Ask for the credentials, once for an attempt; whom that takes too long makes no call."""
    known = endpoint.credentials()
    try:
        seconds_left()
    except TimeoutError:
        sentence = f"{endpoint.setting('DEADLINE')} was over before the credentials were given."
        raise SendError(ERROR_CLASS, sentence) from None
    return known


def _send_again_if_stale(
    call: Call, known: Credentials, endpoint: Endpoint, session: requests.Session
) -> Response:
    try:
        return _exchange(call, known, endpoint, session)
    except requests.ConnectionError as error:
        if not any(isinstance(cause, StaleConnection) for cause in causes(error)):
            raise
    return _exchange(call, known, endpoint, session)


def _exchange(
    call: Call, known: Credentials, endpoint: Endpoint, session: requests.Session
) -> Response:
    request = requests.Request(
        call.method,
        url_of(call, endpoint, known.query),
        headers_of(call, known.headers),
        data=call.body or None,
        auth=known.auth and _told(known.auth, endpoint),
    )
    prepared = prepare(request, session)
    if known.secrets:
        signature = sign(
            known.secrets,
            id=call.uid,
            timestamp=int(time.time()),
            body=_bytes_of(prepared, endpoint),
        )
        prepared.headers.update(signature)
    timeout: Any = Timeout(seconds_left(), *endpoint.timeout)
    # Left unread, a body closes its connection when the block ends: it is never drained.
    with session.send(prepared, stream=True, allow_redirects=False, timeout=timeout) as answer:
        return _read(answer, endpoint)


def prepare(request: requests.Request, session: requests.Session) -> requests.PreparedRequest:
    """Prepare the request as the session would: bytes for bytes, at half of the cost.

    Most sessions add nothing but headers, and requests takes its time to find no cookies.
    """
    added = (request.auth, session.auth, session.params, session.cookies, *session.hooks.values())
    if type(session) is not requests.Session or any(added):
        return session.prepare_request(request)
    prepared = requests.PreparedRequest()
    prepared.prepare_method(request.method)
    prepared.prepare_url(request.url, None)
    headers = CaseInsensitiveDict(session.headers)
    headers.update(request.headers)
    prepared.prepare_headers(headers)
    prepared.prepare_body(request.data, None)
    return prepared


def _told(auth: Auth, endpoint: Endpoint) -> Auth:
    """Return the same, which tells in a sentence that it failed, such as to fetch a token."""

    def authenticate(prepared: requests.PreparedRequest) -> Any:
        try:
            return auth(prepared)
        except EndpointNotMocked:
            raise
        except Exception as error:  # noqa: BLE001 - it is anybody's code
            sentence = f"{endpoint.setting('AUTH')} raised {type(error).__name__}."
            raise SendError(ERROR_CLASS, sentence) from None

    return authenticate


def _bytes_of(prepared: requests.PreparedRequest, endpoint: Endpoint) -> bytes:
    """Return the body as it will go over the wire; whoever prepared it may have changed it."""
    body: Any = prepared.body or b""
    if isinstance(body, str):
        body = prepared.body = body.encode()
        prepared.prepare_content_length(body)
    if not isinstance(body, bytes):
        sentence = f"{endpoint.setting('SECRETS')} can't sign a body that is a stream."
        raise SendError(ERROR_CLASS, sentence)
    return body


def _read(answer: requests.Response, endpoint: Endpoint) -> Response:
    content, limit = bytearray(), endpoint.max_response_bytes
    for piece in decoding.content_of(answer, limit):
        content += piece
        seconds_left()
    return Response.from_answer(
        answer, bytes(content[:limit]), truncated=len(content) > limit, redact=endpoint.redact
    )
