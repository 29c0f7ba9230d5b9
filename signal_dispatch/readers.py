"""Readers of settings' values: each returns the one form that the package works with.

A reader raises ``TypeError`` or ``ValueError`` with what follows the setting's name in a sentence,
and never repeats the value, which may be a secret.
"""

import base64
import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_RATE = re.compile(r"([1-9][0-9]*)/([smh])")
# What urlsplit drops in silence, and what two parsers of URLs read in two ways.
_NEVER_IN_A_URL = re.compile(r"[\x00-\x20\x7f\\]")
# requests looks for these, in this case; all other names would mean nothing to it.
_PROXIED = re.compile(r"(https?|all)(://[a-z0-9.-]+)?")
_PROXY = re.compile(r"(https?|socks[45][ah]?)://")
# RFC 9110, 5.6.2 and 5.5; http.client writes values in Latin-1.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9112, 6: two opinions on where a message ends are how requests are smuggled.
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_HEADER_VALUE = re.compile(r"[^\x00\r\n\u0100-\U0010ffff]*")


def _one_of(*kinds: type, sentence: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        # VERIFY = "" is one mistake that must not pass: requests would verify nothing.
        if not isinstance(value, kinds) or value == "":
            raise TypeError(sentence)
        return value

    return read


text = _one_of(str, sentence="must be a string, and not empty.")
flag = _one_of(bool, sentence="must be True or False.")
flag_or_text = _one_of(bool, str, sentence="must be True, False or the path of a file.")


def texts(value: Any) -> dict[str, str]:
    """Read a dict of strings."""
    if not isinstance(value, Mapping):
        raise TypeError("must be a dict of strings.")
    for name, item in value.items():
        if not isinstance(name, str):
            raise TypeError("must have names that are strings.")
        if not isinstance(item, str):
            raise TypeError(f"must hold strings only, which {name!r} is not.")
    return dict(value)


def dotted_path(value: Any) -> str:
    """Read the dotted path of something to import."""
    if not all(part.isidentifier() for part in text(value).split(".")) or "." not in value:
        raise ValueError('must be a dotted path such as "shop.api.make".')
    return str(value)


def text_or_pair(value: Any) -> str | tuple[str, str]:
    """Read a string or a pair of strings."""
    return pair(value) if isinstance(value, tuple | list) else text(value)


def pair(value: Any) -> tuple[str, str]:
    """Read two strings."""
    if len(value) != 2 or not all(isinstance(item, str) for item in value):
        raise TypeError("must be a pair of strings.")
    return value[0], value[1]


def count(value: Any) -> int:
    """Read a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("must be a whole number, at least 1.")
    return value


def names(value: Any) -> tuple[str, ...]:
    """Read a list of names."""
    if not isinstance(value, tuple | list):
        raise TypeError('must be a list of names, such as ["access_token"].')
    if not all(isinstance(name, str) and name.strip("-_ ") for name in value):
        raise TypeError("must hold names only: strings, and none of them empty.")
    return tuple(value)


def ports(value: Any) -> tuple[int, ...]:
    """Read a list of ports, one at least."""
    if not isinstance(value, tuple | list) or not value:
        raise TypeError("must be a list of ports, and not empty.")
    for port in value:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError("must hold whole numbers from 1 to 65535.")
    return tuple(value)


def share(value: Any) -> float:
    """Read a share: above 0, and no more than 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError("must be a number above 0, and no more than 1.")
    return float(value)


def seconds(value: Any) -> float:
    """Read a finite number of seconds above 0."""
    if not 0 < _number(value) < math.inf:
        raise ValueError("must be more than 0 seconds, and finite.")
    return float(value)


def delay(value: Any) -> float:
    """Read a finite number of seconds from 0."""
    if not 0 <= _number(value) < math.inf:
        raise ValueError("must be 0 seconds or more, and finite.")
    return float(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("must be a number of seconds.")
    return value


def timeout(value: Any) -> tuple[float, float]:
    """Read (connect, read) in seconds; one number stands for both."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2:
        raise ValueError("must be a pair of seconds: connect, read.")
    return seconds(both[0]), seconds(both[1])


def rate(value: Any) -> tuple[int, float] | None:
    """Read "10/s" as (10, 1.0): so many in so many seconds."""
    if value is None:
        return None
    found = _RATE.fullmatch(text(value))
    if found is None:
        raise ValueError('must be a number per "s", "m" or "h", such as "10/s".')
    return int(found[1]), _SECONDS[found[2]]


def url(value: Any) -> str:
    """Read the address of an API: http or https, with a host, without user name and fragment."""
    if _NEVER_IN_A_URL.search(text(value)):
        raise ValueError("must not hold spaces, control characters or backslashes.")
    if not re.match("https?:", value, re.IGNORECASE) or not _has_host(value):
        raise ValueError('must be an http or https URL with a host, as "https://crm.example.com/".')
    parts = urlsplit(value)
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password: put them into AUTH.")
    if parts.fragment:
        raise ValueError("must not have a fragment (#...): it is never sent.")
    return str(value)


def headers(value: Any) -> dict[str, str]:
    """Read HTTP headers."""
    for number, (name, item) in enumerate(texts(value).items(), start=1):
        if not _HEADER_NAME.fullmatch(name):
            # Not repeated: name and value may have changed their places.
            raise ValueError(
                f"holds a name, its number {number}, that no header can have: letters, digits and "
                "hyphens make one."
            )
        if name.lower() in _FRAMING:
            raise ValueError(f"must not have {name!r}: the call itself says how long it is.")
        if not _HEADER_VALUE.fullmatch(item):
            raise ValueError(f"holds a line break or a character beyond Latin-1 in {name!r}.")
    return dict(value)


def proxies(value: Any) -> dict[str, str]:
    """Read proxies as requests takes them: by scheme, or by scheme and host."""
    for name, item in texts(value).items():
        if not _PROXIED.fullmatch(name):
            raise ValueError('must have names such as "https", "all" or "https://a.example".')
        if not _PROXY.match(item) or not _has_host(item):
            raise ValueError(f'must hold URLs, as "http://proxy.example:3128"; see {name!r}.')
    return dict(value)


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname and parts.port != 0 and not _NEVER_IN_A_URL.search(url))
    except ValueError:
        return False


def query(value: Any) -> tuple[tuple[str, str], ...]:
    """Read the parameters of a query: a dict of strings, numbers or lists of them."""
    if not isinstance(value, Mapping):
        raise TypeError("must be a dict of parameters.")
    pairs = []
    for name, item in value.items():
        items = item if isinstance(item, tuple | list) else [item]
        if not isinstance(name, str):
            raise TypeError("must have names that are strings.")
        if not all(isinstance(i, str | int | float) for i in items):
            raise TypeError(f"must hold strings and numbers only, which {name!r} is not.")
        pairs += [(name, str(i)) for i in items]
    return tuple(pairs)


def secret(value: Any) -> bytes:
    """Read a secret of Standard Webhooks, "whsec_" and base64, as the key it stands for."""
    try:
        key = base64.b64decode(text(value).removeprefix("whsec_"), validate=True)
    except (TypeError, ValueError):  # the latter for base64, and for what ASCII can't encode
        key = b""
    if not key or not value.startswith("whsec_"):
        raise ValueError('must be "whsec_" and base64.')
    return key


def secrets(value: Any) -> tuple[str, ...]:
    """Read a list of secrets of Standard Webhooks, as written."""
    if not isinstance(value, tuple | list):
        raise TypeError("must be a list of secrets.")
    if not value:  # unsigned, calls would be refused for ever
        raise ValueError("holds no secret.")
    for place, item in enumerate(value):
        try:
            secret(item)
        except ValueError as error:
            raise ValueError(f"holds a secret, in place {place}, that {error}") from None
    return tuple(value)


def auth(value: Any) -> tuple[str, str] | Callable[[Any], Any]:
    """Read a pair of user and password, or what requests takes as ``auth``."""
    if callable(value):
        return value  # type: ignore[no-any-return]
    if not isinstance(value, tuple | list):
        raise TypeError("must be a pair (user, password) or a requests auth object.")
    return pair(value)
