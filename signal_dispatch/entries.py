"""An entry of the endpoints' setting: parsed, with every fault told by its path."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import urlsplit

from django.utils.module_loading import import_string
from requests.auth import AuthBase, HTTPBasicAuth

from signal_dispatch import readers
from signal_dispatch.breakers import Breaker
from signal_dispatch.exceptions import InvalidEndpoint
from signal_dispatch.retries import RetryPolicy

SETTING = "SIGNAL_DISPATCH_ENDPOINTS"

#: Keys that are understood but do nothing yet, each with the value that asks for nothing.
NOT_YET: Final[Mapping[str, Any]] = {
    "SECRETS": (),
    "SEND_LIMIT": 300.0,
    "RESOLVER": "",
    "ALLOW_PRIVATE_ADDRESSES": True,
}


class EndpointProblem(InvalidEndpoint):
    """One fault in one entry; ``path`` says where it stands in settings."""

    def __init__(self, path: str, sentence: str) -> None:
        super().__init__(f"{path} {sentence}")
        self.path = path


@dataclass(frozen=True, repr=False)
class Endpoint:
    """A remote API: where it is, who we are there, and the limits of a call.

    Times are seconds, ``timeout`` is (connect, read), ``rate`` is (calls, seconds).
    """

    alias: str
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    query: tuple[tuple[str, str], ...] = ()
    auth: tuple[str, str] | str | None = None
    secrets: tuple[str, ...] = ()
    timeout: tuple[float, float] = (3.05, 10.0)
    deadline: float = 15.0
    send_limit: float = 300.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    max_concurrency: int = 8
    rate: tuple[int, float] | None = None
    breaker: Breaker | None = field(default_factory=Breaker)
    verify: bool | str = True
    cert: str | tuple[str, str] | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    session: str = ""
    max_response_bytes: int = 64 * 1024
    allow_private_addresses: bool = True
    enabled: bool = True
    backend: str = "default"
    resolver: str = ""

    def __repr__(self) -> str:
        # Everything else may be, or hold, a secret.
        return f"<Endpoint {self.alias!r} at {self.host or 'no host'}>"

    @property
    def host(self) -> str:
        """Return host and port: the one part of the URL that may be shown."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def not_yet(self) -> tuple[str, ...]:
        """Return the keys that ask for something which is not built yet."""
        return tuple(k for k, idle in NOT_YET.items() if getattr(self, k.lower()) != idle)

    def join(self, path: str) -> str:
        """Return the URL of a path below this endpoint; ``""`` leaves its own URL untouched.

        A query of the endpoint's URL stays a query, and stands before that of the path.
        """
        if not path:
            return self.url
        base, _, own_query = self.url.partition("?")
        path, _, query = path.partition("?")
        queries = "&".join(part for part in (own_query, query) if part)
        return f"{base.rstrip('/')}/{path}" + (f"?{queries}" if queries else "")

    def get_auth(self) -> AuthBase | None:
        """Return what authenticates a request with ``requests``; asked anew for each call.

        Raises ``InvalidEndpoint`` where ``AUTH`` names something that can't be imported.
        """
        if self.auth is None:
            return None
        if isinstance(self.auth, tuple):
            user, password = self.auth
            # RFC 7617 knows UTF-8; left as text, requests would insist on Latin-1.
            return HTTPBasicAuth(user.encode(), password.encode())
        auth: AuthBase = self.load("AUTH")()
        return auth

    def load(self, key: str) -> Callable[[], Any]:
        """Import the callable that a key names; raises ``InvalidEndpoint``."""
        try:
            loaded: Callable[[], Any] = import_string(getattr(self, key.lower()))
        except ImportError as error:
            raise EndpointProblem(_path(self.alias, key), f"can't be imported: {error}") from error
        return loaded


def parse(alias: str, entry: Mapping[str, Any]) -> tuple[Endpoint, list[EndpointProblem]]:
    """Read one entry; keys at fault keep their default and are told in the second value."""
    values: dict[str, Any] = {}
    problems = []
    if not alias or ":" in alias:
        problems.append(EndpointProblem(_path(alias), "must be a name without a colon."))
    for key, value in entry.items():
        if key not in _READERS:
            problems.append(EndpointProblem(_path(alias, key), _unknown_key(key)))
            continue
        try:
            values[key.lower()] = _READERS[key](value)
        except (TypeError, ValueError) as error:
            problems.append(EndpointProblem(_path(alias, key), str(error)))
    if "RESOLVER" in entry:
        values.setdefault("allow_private_addresses", False)
    elif "URL" not in entry:
        problems.append(EndpointProblem(_path(alias), 'lacks "URL", the address of the API.'))
    return Endpoint(alias, **values), problems


def _secrets(value: Any) -> tuple[str, ...]:
    """Read secrets of Standard Webhooks: "whsec_" and base64, the first one signs."""
    if not isinstance(value, tuple | list):
        raise TypeError("must be a list of secrets.")
    for secret in value:
        try:
            key = base64.b64decode(readers.text(secret).removeprefix("whsec_"), validate=True)
        except (TypeError, binascii.Error):
            key = b""
        if not key or not secret.startswith("whsec_"):
            raise ValueError('must hold secrets of the form "whsec_" and base64.')
    return tuple(value)


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "URL": readers.url,
    "HEADERS": readers.headers,
    "QUERY": readers.query,
    "AUTH": readers.auth,
    "SECRETS": _secrets,
    "TIMEOUT": readers.timeout,
    "DEADLINE": readers.seconds,
    "SEND_LIMIT": readers.seconds,
    "RETRY": RetryPolicy.from_setting,
    "MAX_CONCURRENCY": readers.count,
    "RATE": readers.rate,
    "BREAKER": Breaker.from_setting,
    "VERIFY": readers.flag_or_text,
    "CERT": readers.text_or_pair,
    "PROXIES": readers.texts,
    "SESSION": readers.dotted_path,
    "MAX_RESPONSE_BYTES": readers.count,
    "ALLOW_PRIVATE_ADDRESSES": readers.flag,
    "ENABLED": readers.flag,
    "BACKEND": readers.text,
    "RESOLVER": readers.dotted_path,
}


def _path(alias: str, key: Any = "") -> str:
    return f'{SETTING}["{alias}"]' + (f'["{key}"]' if key else "")


def _unknown_key(key: Any) -> str:
    close = get_close_matches(str(key).upper(), _READERS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(_READERS)}."
    return f"is no key of an endpoint: {hint}"
