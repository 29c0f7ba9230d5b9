"""Check the entries with a RESOLVER: can it be asked, and what would all of its endpoints get?"""

from collections.abc import Iterator
from inspect import signature
from typing import Any

from django.core.checks import CheckMessage

from signal_dispatch.checks.problems import Problem
from signal_dispatch.checks.slips import is_async
from signal_dispatch.credentials import Asked
from signal_dispatch.entries import Endpoint
from signal_dispatch.redacting import is_confidential


def check_resolver(endpoint: Endpoint, path: str) -> Iterator[CheckMessage]:
    """See that it can be imported, and called with a key. Raises ``InvalidEndpoint``."""
    resolver: Any = endpoint.load("RESOLVER")
    fault = ""
    if not callable(resolver):
        fault = "is not callable"
    elif is_async(resolver):
        fault = "is async, and nobody would await it"
    elif not _takes_a_key(resolver):
        fault = "can't be called with one argument, the key"
    if fault:
        yield Problem.RESOLVER_INVALID.message(
            f'{path}["RESOLVER"] names {endpoint.resolver}, which {fault}.',
            hint='Write a function that takes the key as text, and returns a dict such as {"URL": '
            "...}, or None where there is no such endpoint.",
        )


def check_shared_secrets(endpoint: Endpoint, path: str) -> Iterator[CheckMessage]:
    """Warn of secrets that go to whatever URL the RESOLVER names."""
    if endpoint.url:
        return
    headers = endpoint.headers
    shared = {
        "HEADERS": isinstance(headers, Asked) or any(map(is_confidential, headers)),
        "QUERY": bool(endpoint.query),
        "AUTH": bool(endpoint.auth),
        "SECRETS": bool(endpoint.secrets),
    }
    for key in (key for key, found in shared.items() if found):
        yield Problem.RESOLVER_SHARES_SECRETS.message(
            f'{path}["{key}"] is sent to every URL that its RESOLVER names.',
            hint="Let the RESOLVER answer with what is secret between you and that one endpoint.",
        )


def _takes_a_key(resolver: Any) -> bool:
    try:
        signature(resolver).bind("42")
    except TypeError:
        return False
    except ValueError:  # one written in C tells nothing
        return True
    return True
