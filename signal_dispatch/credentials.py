"""Who the site is at an endpoint: as settings hold it, or asked for each time it is sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from django.utils.module_loading import import_string
from requests.auth import AuthBase, HTTPBasicAuth

from signal_dispatch import readers
from signal_dispatch.exceptions import EndpointNotMocked, SendError

#: Error class of an attempt that made no call, as it was not known as whom.
ERROR_CLASS: Final = "credentials"

#: What a key of an entry is made of, and the value that stands for a callable within it.
_KEYS: Final[Mapping[str, tuple[str, Callable[[Any], Any], str]]] = {
    "HEADERS": ("a dict of strings", readers.headers, ""),
    "QUERY": ("a dict of parameters", readers.query, ""),
    "AUTH": ("a pair (user, password), a requests auth object", readers.auth, ""),
    "SECRETS": ("a list of secrets", readers.secrets, "whsec_AAAA"),
}

KEYS: Final = tuple(_KEYS)

Auth: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What an endpoint adds to a call: all of it may be secret, so none of it is shown."""

    headers: Mapping[str, str]
    query: tuple[tuple[str, str], ...]
    auth: Auth | None
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Asked:
    """A key that is asked for when it is sent, as a whole or in parts, and never before.

    ``source`` is the dotted path of a callable, a callable, or a dict or list with callables in it.
    """

    source: Any

    def __repr__(self) -> str:
        return "<asked when it is sent>"

    @property
    def parts(self) -> Mapping[Any, Any]:
        """Return the parts by name or place; none where it is asked for as a whole."""
        return {} if isinstance(self.source, str) or callable(self.source) else _parts(self.source)


def reader_of(key: str) -> Callable[[Any], Any]:
    """Return the reader of a key in settings: it gives what is constant, or an ``Asked``."""
    kind, read_constant, stand_in = _KEYS[key]

    def read(value: Any) -> Any:
        if _is_askable(value):
            return Asked(value)
        if isinstance(value, str):
            try:
                return Asked(readers.dotted_path(value))
            except (TypeError, ValueError):
                raise ValueError(
                    f"must be {kind}, a callable, or the dotted path of one."
                ) from None
        constant = read_constant(_filled(value, lambda place, item: stand_in))
        return Asked(value) if any(map(_is_askable, _parts(value).values())) else constant

    return read


def gather(values: Mapping[str, Any], path_of: Callable[[str], str]) -> Credentials:
    """Put the values of all keys together; raises ``SendError`` as ``ask`` does."""
    found = {
        key: ask(key, value, path_of(key)) if isinstance(value, Asked) else value
        for key, value in values.items()
    }
    return Credentials(
        found["HEADERS"], found["QUERY"], _for_requests(found["AUTH"]), found["SECRETS"]
    )


def ask(key: str, asked: Asked, path: str) -> Any:
    """Ask for the value of a key; raises ``SendError``, which names ``path`` and no value.

    The error's class is ``credentials``, also for a callable that raises: the next attempt asks
    again.
    """
    value = asked.source
    if isinstance(value, str):
        value = imported(value, path)
    if _is_askable(value):
        value = _answer(value, path)
    value = _filled(value, lambda place, item: _answer(item, f"{path}[{_shown(place)}]"))
    try:
        return _KEYS[key][1](value)
    except (TypeError, ValueError) as error:
        raise _failed(f"{path} was asked for, and the answer {error}") from None


def imported(dotted: str, path: str) -> Callable[[], Any]:
    """Import what a dotted path names, which is not repeated: by mistake it may be a secret."""
    try:
        found: Callable[[], Any] = import_string(dotted)
    except Exception as error:  # noqa: BLE001 - its module is anybody's code
        raise _failed(f"{path} can't be imported ({_reason(error, dotted)}).") from None
    return found


def _answer(source: Callable[[], Any], path: str) -> Any:
    try:
        return source()
    except EndpointNotMocked:
        raise
    except Exception as error:  # noqa: BLE001 - it is anybody's code
        # Not its words: they may hold what it asked with.
        raise _failed(f"{path} was asked for, and {type(error).__name__} was raised.") from None


def _for_requests(auth: Any) -> Auth | None:
    if not isinstance(auth, tuple):
        return auth  # type: ignore[no-any-return]
    user, password = auth
    # RFC 7617 knows UTF-8; left as text, requests would insist on Latin-1.
    return HTTPBasicAuth(user.encode(), password.encode())


def _failed(sentence: str) -> SendError:
    return SendError(ERROR_CLASS, sentence)


def _is_askable(value: Any) -> bool:
    """Say whether it is to be called; a requests auth object is callable, but with a request."""
    return callable(value) and not isinstance(value, AuthBase)


def _parts(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    return dict(enumerate(value)) if isinstance(value, list | tuple) else {}


def _filled(value: Any, fill: Callable[[Any, Any], Any]) -> Any:
    """Return the same with each callable in it replaced."""
    if not any(map(_is_askable, _parts(value).values())):
        return value
    parts = {p: fill(p, item) if _is_askable(item) else item for p, item in _parts(value).items()}
    return parts if isinstance(value, Mapping) else list(parts.values())


def _shown(place: Any) -> str:
    return f'"{place}"' if isinstance(place, str) else str(place)


def _reason(error: Exception, dotted: str) -> str:
    """Return the kind of an error, and its words where they are about another module."""
    kind, name = type(error).__name__, getattr(error, "name", None)
    is_foreign = isinstance(error, ImportError) and name and not dotted.startswith(name)
    return f"{kind}: {error}" if is_foreign else kind
