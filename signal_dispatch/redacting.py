"""Mask what an answer brings and nobody is to read later: credentials, and the names of REDACT."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote_plus

MASK: Final = "[redacted]"

_CONFIDENTIAL = re.compile(
    r"authorization|cookie|token|secret|passw|credential|(api|access|private|auth)key"
)
# What a server asks of whoever wants to be let in, and what it proves afterwards.
_CHALLENGES = frozenset(
    {"wwwauthenticate", "proxyauthenticate", "authenticationinfo", "proxyauthenticationinfo"}
)
# Headers with a URL, which may be that of the call once more.
_WITH_URLS = frozenset({"location", "contentlocation", "link", "refresh"})


def is_confidential(name: str) -> bool:
    """Say whether something of that name looks like a secret."""
    return _CONFIDENTIAL.search(_folded(name)) is not None


def is_named(name: str, names: Iterable[str]) -> bool:
    """Say whether a name is one of ``names``, however they are written."""
    return _folded(name) in map(_folded, names)


def kept_headers(
    headers: Mapping[str, str],
    names: Iterable[str],
    *,
    parameters: Iterable[str] = (),
    path: str = "",
) -> dict[str, str]:
    """Return the headers of an answer as they may be stored: those of ``names`` are masked.

    Where they repeat the URL of the call, so are the values of ``parameters`` and the ``path``.
    """
    masked = {_folded(name) for name in names}
    kept = dict(headers)
    for name, value in headers.items():
        folded = _folded(name)
        if folded in masked or folded in _CHALLENGES or _CONFIDENTIAL.search(folded):
            kept[name] = MASK
        elif folded in _WITH_URLS:
            kept[name] = _without_secrets(value, parameters, path)
    return kept


def kept_content(content: bytes, names: Iterable[str]) -> bytes:
    """Return the content of an answer as it may be stored.

    In JSON, whatever stands under one of the names is masked, at any depth. What is not JSON, or
    not whole, is masked altogether where it mentions one of them.
    """
    masked = {_folded(name) for name in names}
    if not masked or not content:
        return content
    found = False

    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        hidden = {name for name, _value in pairs if _folded(name) in masked}
        found = found or bool(hidden)
        return {name: MASK if name in hidden else value for name, value in pairs}

    try:
        value = json.loads(content, object_pairs_hook=read)
        return json.dumps(value, allow_nan=False).encode() if found else content
    except (ValueError, RecursionError):
        text = content.decode(errors="replace")
        return MASK.encode() if found or shown(text, names) == MASK else content


def shown(text: str, names: Iterable[str]) -> str:
    """Return a text of an answer as a message may repeat it: masked if it mentions a name."""
    folded = _folded(text)
    return MASK if any(_folded(name) in folded for name in names) else text


def _folded(name: str) -> str:
    # So that X-Api-Key and APIKEY are one.
    return name.lower().replace("-", "").replace("_", "")


def _without_secrets(value: str, parameters: Iterable[str], path: str) -> str:
    if len(path) > 1:
        value = value.replace(path, MASK)
    for parameter in parameters:
        start = rf"([?&;]{re.escape(quote_plus(parameter))}=)[^&;#\s>\"]*"
        value = re.sub(start, rf"\g<1>{MASK}", value)
    return value
