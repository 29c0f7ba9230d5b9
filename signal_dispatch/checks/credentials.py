"""Check by whom and by what the site is known to an endpoint; nothing is asked for here."""

import ssl
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any, Final

from django.core.checks import CheckMessage
from requests.auth import AuthBase

from signal_dispatch import readers
from signal_dispatch.checks import slips
from signal_dispatch.checks.problems import Problem, guarded, of_settings
from signal_dispatch.conf import settings
from signal_dispatch.credentials import KEYS, Asked, imported
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import Endpoint, parse
from signal_dispatch.exceptions import InvalidEndpoint, SendError

# Standard Webhooks 1.0.0: a secret has 24 to 64 random bytes.
_SHORTEST_KEY: Final = 24


def check_credentials() -> Iterator[CheckMessage]:
    """See that what is asked for when it is sent can be asked for, and that the rest is of use."""
    for alias in endpoints:
        endpoint = parse(alias, settings.endpoints[alias])[0]
        for key in KEYS:
            value = getattr(endpoint, key.lower())
            if isinstance(value, Asked):
                yield from guarded(endpoint.setting(key), _check_asked(endpoint, key, value))
        yield from _check_secrets(endpoint)
        yield from _check_certificates(endpoint)


def _check_asked(endpoint: Endpoint, key: str, asked: Asked) -> Iterator[CheckMessage]:
    path = endpoint.setting(key)
    if asked.parts:
        for place, item in asked.parts.items():
            if callable(item):
                shown = f'"{place}"' if isinstance(place, str) else place
                yield from _check_callable(item, f"{path}[{shown}]")
        return
    source = asked.source
    if isinstance(source, str):
        try:
            source = imported(source, path)
        except SendError as error:
            yield of_settings(InvalidEndpoint(str(error)))
            return
    if not callable(source):
        yield of_settings(InvalidEndpoint(f"{path} names something that is not callable."))
    elif not isinstance(source, AuthBase):
        yield from _check_callable(source, path)


def _check_callable(asked: Callable[..., Any], path: str) -> Iterator[CheckMessage]:
    if slips.is_async(asked):
        yield Problem.CREDENTIAL_UNASKABLE.message(
            f"{path} is an async function, and nobody awaits what it gives.",
            hint="Write it with def: it is called in the thread that sends, not in a loop.",
        )
    elif not _takes_nothing(asked):
        yield Problem.CREDENTIAL_UNASKABLE.message(
            f"{path} can't be called without arguments.",
            hint="It is called without any, at each attempt; functools.partial gives it its own.",
        )


def _takes_nothing(asked: Callable[..., Any]) -> bool:
    try:
        signature(asked).bind()
    except TypeError:
        return False
    except ValueError:  # one of those written in C that tell nothing of themselves
        return True
    return True


def _check_secrets(endpoint: Endpoint) -> Iterator[CheckMessage]:
    secrets = endpoint.secrets
    parts = secrets.parts if isinstance(secrets, Asked) else dict(enumerate(secrets))
    for place, secret in parts.items():
        if isinstance(secret, str) and len(readers.secret(secret)) < _SHORTEST_KEY:
            yield Problem.SIGNING_KEY_SHORT.message(
                f"{endpoint.setting('SECRETS')}[{place}] is shorter than {_SHORTEST_KEY} bytes.",
                hint="Take 24 to 64 random bytes, in base64 behind whsec_.",
            )


def _check_certificates(endpoint: Endpoint) -> Iterator[CheckMessage]:
    """See that files of certificates can be read; that they are there is seen elsewhere."""
    context: Any = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    pair = (endpoint.cert, None) if isinstance(endpoint.cert, str) else endpoint.cert
    if pair is not None and all(part is None or _is_file(part) for part in pair):
        # A password would be asked for at the terminal, at each start; requests can't give one.
        yield from _refused(endpoint, "CERT", lambda: context.load_cert_chain(*pair, lambda: ""))
    verify = endpoint.verify
    if isinstance(verify, str) and _is_file(verify):
        yield from _refused(endpoint, "VERIFY", lambda: context.load_verify_locations(verify))


def _refused(endpoint: Endpoint, key: str, load: Callable[[], None]) -> Iterator[CheckMessage]:
    try:
        load()
    except (OSError, ValueError) as error:
        detail = getattr(error, "reason", None) or getattr(error, "strerror", None)
        yield Problem.CERTIFICATE_UNUSABLE.message(
            f"{endpoint.setting(key)} can't be used: {detail or type(error).__name__}.",
            hint="It must be readable PEM; a client certificate needs its key, without a password.",
        )


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False
