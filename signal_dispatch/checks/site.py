"""Check the settings: every fault of every entry, used by a dispatch or not."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from inspect import isclass
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage
from django.utils.module_loading import import_string

from signal_dispatch.backends import BaseBackend, backends
from signal_dispatch.checks import resolvers
from signal_dispatch.checks.exposure import check_exposure
from signal_dispatch.checks.problems import Problem, choice, guarded, longest, of_settings
from signal_dispatch.conf import MARGIN_SECONDS, PREFIX, Settings, settings
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import SETTING, Endpoint, parse
from signal_dispatch.exceptions import InvalidBackend, InvalidEndpoint, InvalidSettings
from signal_dispatch.registry import registry

_NAMES = [name for name, value in vars(Settings).items() if isinstance(value, cached_property)]
_BACKENDS = PREFIX + "BACKENDS"


def check_settings() -> Iterator[CheckMessage]:
    """Read each setting, and look for names that are none."""
    for name in _NAMES:
        if name == "environment":
            continue  # check_environment does.
        try:
            getattr(settings, name)
        except InvalidSettings as error:
            yield of_settings(error)
    known = {PREFIX + name.upper() for name in _NAMES}
    for name in dir(django_settings):
        if name not in known and (name.startswith(PREFIX) or _is_meant(name, known)):
            yield Problem.SETTING_UNKNOWN.message(
                f"{name} is no setting of signal_dispatch, so it does nothing.",
                hint=choice(name, known, "signal_dispatch"),
            )


def _is_meant(name: str, known: set[str]) -> bool:
    """Say whether a setting is ours but for a slip, such as SIGNALDISPATCH_ENDPOINTS."""
    folded = {each.replace("_", "") for each in known}
    return bool(get_close_matches(name.replace("_", ""), folded, n=1, cutoff=0.92))


def check_rate_storage() -> Iterator[CheckMessage]:
    """See that the library is there, and knows the storage; nothing is connected to."""
    with suppress(InvalidSettings):  # check_settings told of it
        if settings.rate_storage:
            yield from _check_storage(settings.rate_storage)


def _check_storage(uri: str) -> Iterator[CheckMessage]:
    try:
        from signal_dispatch.shared_rates import limiter_for

        limiter_for(uri)
    except ModuleNotFoundError as error:
        if error.name != "limits":
            raise
        yield Problem.RATE_LIBRARY_MISSING.message(
            f"{PREFIX}RATE_STORAGE needs the library limits, which is not installed.",
            hint="Install django-signal-dispatch[rate].",
        )
    except InvalidSettings as error:
        yield Problem.RATE_STORAGE_UNUSABLE.message(
            str(error),
            hint='Write it as "redis://host:6379/0", and install django-signal-dispatch[rate].',
        )


def check_environment() -> Iterator[CheckMessage]:
    """See that the environment fits its column: where it does not, every save would fail."""
    value = getattr(django_settings, f"{PREFIX}ENVIRONMENT", "")
    most = longest("environment")
    if not isinstance(value, str):
        yield Problem.SETTING_INVALID.message(
            f"{PREFIX}ENVIRONMENT must be a string.",
            hint='Name the installation, such as "staging"; without a name it is "".',
        )
    elif len(value) > most:
        yield Problem.SETTING_INVALID.message(
            f"{PREFIX}ENVIRONMENT must not be longer than {most} characters.",
            hint='Give the installation a short name, such as "staging".',
        )


def check_endpoints() -> Iterator[CheckMessage]:
    """Read each endpoint, and what it refers to."""
    for problem in endpoints.errors():
        yield of_settings(problem)
    for alias in endpoints:
        path = f'{SETTING}["{alias}"]'
        endpoint = _readable(alias)
        yield from guarded(path, _check_endpoint(endpoint, path))
        yield from guarded(path, _check_files(endpoint, path))
        yield from guarded(path, _check_lease(endpoint, path))
        yield from guarded(path, check_exposure(endpoint, path))


def check_backends() -> Iterator[CheckMessage]:
    """Make each backend, and ask those that are used what they think of this site."""
    used = _used()
    for alias, entry in settings.backends.items():
        path = f'{_BACKENDS}["{alias}"]'
        for key in sorted(set(entry) - {"BACKEND", "OPTIONS"}, key=str):
            yield Problem.BACKEND_INVALID.message(
                f'{path}["{key}"] is no key of a backend.',
                hint='Known are BACKEND and OPTIONS; arguments of the backend stand in "OPTIONS".',
            )
        yield from guarded(path, _check_backend(alias, path, used=alias in used))


def _check_endpoint(endpoint: Endpoint, path: str) -> Iterator[CheckMessage]:
    most = longest("endpoint")
    if len(endpoint.alias) > most:
        error = InvalidEndpoint(f"{path} must have an alias of at most {most} characters.")
        yield of_settings(error)
    if endpoint.backend not in settings.backends:
        yield Problem.BACKEND_UNKNOWN.message(
            f'{path}["BACKEND"] names {endpoint.backend!r}{_by_default(endpoint)}, which '
            f"{_BACKENDS} does not have.",
            hint=choice(endpoint.backend, settings.backends, _BACKENDS),
        )
    if endpoint.session:
        yield from guarded(f'{path}["SESSION"]', _check_session(endpoint, path))
    if endpoint.resolver:
        yield from guarded(path, resolvers.check_resolver(endpoint, path))
        yield from resolvers.check_shared_secrets(endpoint, path)


def _by_default(endpoint: Endpoint) -> str:
    entry: Any = settings.endpoints[endpoint.alias]
    return "" if isinstance(entry, Mapping) and "BACKEND" in entry else " (its default)"


def _check_session(endpoint: Endpoint, path: str) -> Iterator[CheckMessage]:
    if not callable(endpoint.load("SESSION")):
        yield of_settings(
            InvalidEndpoint(f'{path}["SESSION"] names something that is not callable.')
        )


def _check_files(endpoint: Endpoint, path: str) -> Iterator[CheckMessage]:
    """See that certificates are there: without them no call is ever made."""
    named: dict[str, Any] = {'["VERIFY"]': endpoint.verify, '["CERT"]': endpoint.cert}
    if isinstance(endpoint.cert, tuple):
        del named['["CERT"]']
        named |= {f'["CERT"][{place}]': file for place, file in enumerate(endpoint.cert)}
    for key, file in named.items():
        if isinstance(file, str) and not _exists(file):
            # Not repeated: by mistake it may be the key itself.
            yield of_settings(
                InvalidEndpoint(
                    f"{path}{key} is the path of a file that does not exist. "
                    "A relative path begins where the process was started."
                )
            )


def _exists(path: str) -> bool:
    try:
        return path != "" and Path(path).exists()
    except (OSError, ValueError):  # longer than a path can be, or holding NUL
        return False


def _check_lease(endpoint: Endpoint, path: str) -> Iterator[CheckMessage]:
    """See that an attempt fits into a lease, with a margin before its start and after its end."""
    lease, needed = settings.lease_seconds, endpoint.deadline + 2 * MARGIN_SECONDS
    if lease < needed:
        yield Problem.LEASE_TOO_SHORT.message(
            f"{PREFIX}LEASE_SECONDS ({lease:g}) is too short for the DEADLINE of {path} "
            f"({endpoint.deadline:g}): another process would take a call that still runs.",
            hint=f"Set {PREFIX}LEASE_SECONDS to {needed:g} or more, or shorten the DEADLINE.",
        )


def _check_backend(alias: str, path: str, *, used: bool) -> Iterator[CheckMessage]:
    named = settings.backends[alias].get("BACKEND", "")
    declared: Any = None
    # What can't be imported is told when the backend is made.
    with suppress(ImportError):
        declared = import_string(named) if isinstance(named, str) else named
    if declared is None or (isclass(declared) and issubclass(declared, BaseBackend)):
        messages = backends[alias].check()
        yield from messages if used else ()
    else:
        sentence = "which is no subclass of signal_dispatch.backends.BaseBackend."
        yield of_settings(InvalidBackend(f'{path}["BACKEND"] is {named!r}, {sentence}'))


def _used() -> set[str]:
    """Return the backends of all endpoints that a dispatch may send to."""
    aliases: set[str] = set()
    for dispatch in registry:
        any_of_them = dispatch.overrides("get_endpoint")
        entry = str(dispatch.endpoint).partition(":")[0]
        aliases |= {a for a in endpoints if any_of_them or a == entry}
    wanted = [_readable(alias) for alias in aliases]
    return {endpoint.backend for endpoint in wanted if endpoint.enabled}


def _readable(alias: str) -> Endpoint:
    """Return what can be read of an endpoint; defaults stand where it can't."""
    return parse(alias, settings.endpoints[alias])[0]
