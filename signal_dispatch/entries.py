"""An entry of the endpoints' setting: parsed, with every fault told by its path."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from django.utils.module_loading import import_string

from signal_dispatch import readers
from signal_dispatch.breakers import Breaker
from signal_dispatch.credentials import KEYS, Asked, Auth, Credentials, gather, reader_of
from signal_dispatch.exceptions import InvalidEndpoint
from signal_dispatch.retries import RetryPolicy

SETTING = "SIGNAL_DISPATCH_ENDPOINTS"

#: Keys that no answer of a RESOLVER may have. The first three are needed before it is asked; the
#: others decide where this process may connect to, which a tenant's own data must not.
NEVER_ANSWERED: Final = (
    "RESOLVER",
    "ENABLED",
    "BACKEND",
    "ALLOW_PRIVATE_ADDRESSES",
    "PORTS",
    "PROXIES",
    "SESSION",
)
# What a tenant's own data says must not be imported, and called.
_NEVER_IMPORTED = "must not be a dotted path in an answer: answer with what it names."


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
    headers: Mapping[str, str] | Asked = field(default_factory=dict)
    query: tuple[tuple[str, str], ...] | Asked = ()
    auth: tuple[str, str] | Auth | Asked | None = None
    secrets: tuple[str, ...] | Asked = ()
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
    ports: tuple[int, ...] = (80, 443)
    redact: tuple[str, ...] = ()
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

    def setting(self, key: str) -> str:
        """Return where a key of it stands in settings, for a sentence."""
        return _path(self.alias, key)

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

    def credentials(self) -> Credentials:
        """Return who we are there now; what settings leave to be asked for is asked for.

        Raises ``SendError`` where that gives nothing that can be used.
        """
        return self._constant or self._gathered()

    @cached_property
    def _constant(self) -> Credentials | None:
        """The credentials, where nothing of them is asked for: then a call costs no work."""
        return None if any(isinstance(v, Asked) for v in self._held.values()) else self._gathered()

    def _gathered(self) -> Credentials:
        return gather(self._held, self.setting)

    @property
    def _held(self) -> Mapping[str, Any]:
        return {key: getattr(self, key.lower()) for key in KEYS}

    def problem(self, key: str, sentence: str) -> EndpointProblem:
        """Return what is wrong with one of its keys, as a sentence that begins with its path."""
        return EndpointProblem(_path(self.alias, key), sentence)

    def load(self, key: str) -> Callable[[], Any]:
        """Import the callable that a key names; raises ``InvalidEndpoint``."""
        try:
            loaded: Callable[[], Any] = import_string(getattr(self, key.lower()))
        except ImportError as error:
            raise self.problem(key, f"can't be imported: {error}") from error
        return loaded


def parse(alias: str, entry: Mapping[str, Any]) -> tuple[Endpoint, list[EndpointProblem]]:
    """Read one entry; keys at fault keep their default and are told in the second value."""
    values, problems = _read(entry, _path(alias))
    if not alias or ":" in alias:
        problems.insert(0, EndpointProblem(_path(alias), "must be a name without a colon."))
    if "RESOLVER" in entry:
        values.setdefault("allow_private_addresses", False)
    return Endpoint(alias, **values), problems


def parse_answer(
    alias: str, entry: Mapping[str, Any], answer: Any, place: str
) -> tuple[Endpoint, list[EndpointProblem]]:
    """Read what a RESOLVER answered, over the other keys of its entry, which is sound.

    ``place`` stands in front of the keys at fault.
    """
    if not isinstance(answer, Mapping):
        sentence = f"returned {type(answer).__name__}, which is neither a dict nor None."
        return Endpoint(alias), [EndpointProblem(place, sentence)]
    told, problems = _read(answer, place)
    known, _none = parse(alias.partition(":")[0], entry)
    endpoint = replace(known, **{**told, "alias": alias, "resolver": ""})
    faults = {key: "must stand in the settings' entry." for key in NEVER_ANSWERED if key in answer}
    faults |= {key: _NEVER_IMPORTED for key in KEYS if _is_imported(told.get(key.lower()))}
    problems += [EndpointProblem(f'{place}["{key}"]', fault) for key, fault in faults.items()]
    if not (endpoint.url or "URL" in answer):
        problems.append(EndpointProblem(place, 'lacks "URL", as does the entry in settings.'))
    return endpoint, problems


def _is_imported(value: Any) -> bool:
    return isinstance(value, Asked) and isinstance(value.source, str)


def _read(entry: Mapping[str, Any], place: str) -> tuple[dict[str, Any], list[EndpointProblem]]:
    values: dict[str, Any] = {}
    problems = []
    for key, value in entry.items():
        path = f'{place}["{key}"]'
        if key not in _READERS:
            problems.append(EndpointProblem(path, _unknown_key(key)))
            continue
        try:
            values[key.lower()] = _READERS[key](value)
        except (TypeError, ValueError) as error:
            problems.append(EndpointProblem(path, str(error)))
    return values, problems


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "URL": readers.url,
    "HEADERS": reader_of("HEADERS"),
    "QUERY": reader_of("QUERY"),
    "AUTH": reader_of("AUTH"),
    "SECRETS": reader_of("SECRETS"),
    "TIMEOUT": readers.timeout,
    "DEADLINE": readers.seconds,
    "SEND_LIMIT": readers.seconds,
    "RETRY": RetryPolicy.from_setting,
    "MAX_CONCURRENCY": readers.count,
    "RATE": readers.rate,
    "BREAKER": Breaker.from_setting,
    "VERIFY": readers.flag_or_text,
    "CERT": readers.text_or_pair,
    "PROXIES": readers.proxies,
    "SESSION": readers.dotted_path,
    "MAX_RESPONSE_BYTES": readers.count,
    "ALLOW_PRIVATE_ADDRESSES": readers.flag,
    "PORTS": readers.ports,
    "REDACT": readers.names,
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
