"""Say in a sentence why a call brought no answer."""

import socket
import ssl
from collections.abc import Iterator
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected

import requests
from urllib3 import exceptions as errors

from signal_dispatch.exceptions import InvalidSettings, SendError

_UNKNOWN_NAME = "The name of {host} could not be resolved: {detail}."
_UNSAFE = "No secure connection to {host}: {detail}."
_NO_PROXY = "The proxy on the way to {host} could not be used: {detail}."
_UNREACHED = "{host} could not be reached: {detail}."
_LATE = "{host} did not answer in time."
_BROKEN = "{host} broke off, or did not speak HTTP: {detail}."

# For errors that bring no words of their own which may be shown; the first line that fits decides.
_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "no answer in time"),
    (RemoteDisconnected, "the connection was closed without an answer"),
    (errors.InvalidHeader, "the answer tells its length in two ways"),
    (errors.InvalidChunkLength, "the length of a chunk is missing"),
    (IncompleteRead, "the answer ends too early"),
    (BadStatusLine, "the answer begins with no status"),
    (HTTPException, "the answer can't be read"),
)

# The first line that fits decides: urllib3 counts a refused connection among its timeouts.
_FAILURES: tuple[tuple[tuple[type[BaseException], ...], str, str], ...] = (
    ((errors.ProxyError, requests.exceptions.ProxyError), "connect", _NO_PROXY),
    ((errors.NameResolutionError, socket.gaierror), "dns", _UNKNOWN_NAME),
    ((ssl.SSLError, errors.SSLError, requests.exceptions.SSLError), "tls", _UNSAFE),
    ((errors.NewConnectionError, ConnectionRefusedError), "connect", _UNREACHED),
    ((TimeoutError, errors.TimeoutError, requests.Timeout), "timeout", _LATE),
    ((ConnectionResetError, BrokenPipeError, errors.ProtocolError), "protocol", _BROKEN),
    ((ConnectionError, requests.ConnectionError), "connect", _UNREACHED),
)


def explain(error: Exception, host: str) -> SendError:
    """Say in one sentence, without secrets, why a call brought no answer.

    Of the error's own words only those of the operating system and of OpenSSL are repeated: all
    others may hold the URL or a header. A ``SendError`` of ours, wrapped by others or not, stays.
    """
    if isinstance(error, InvalidSettings):
        return SendError("protocol", str(error))
    host = host or "the endpoint"  # without a URL, whose calls are the site's own
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, SendError):
            # A copy: the way that it came leads through frames that hold credentials.
            return SendError(cause.error_class, str(cause), for_good=cause.for_good)
    for kinds, error_class, sentence in _FAILURES:
        if any(isinstance(cause, kinds) for cause in chain):
            return SendError(error_class, sentence.format(host=host, detail=_detail(chain)))
    return SendError("protocol", f"The call to {host} failed: {_detail(chain)}.")


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it wraps; requests and urllib3 keep the cause in ``args``."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            waiting += [*current.args, current.__cause__, getattr(current, "reason", None)]


def _detail(chain: list[BaseException]) -> str:
    for cause in chain:
        if isinstance(cause, ssl.SSLError):
            reason = (getattr(cause, "reason", "") or "").replace("_", " ").lower()
            words: str = getattr(cause, "verify_message", "") or reason or "TLS failed"
            return words.rstrip(".")
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            return cause.strerror
        for kind, said in _WORDS:
            if isinstance(cause, kind):
                return said
    return type(chain[-1]).__name__
