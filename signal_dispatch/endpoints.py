"""The remote APIs that settings name, by alias."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from django.core.signals import setting_changed

from signal_dispatch.breakers import Breaker
from signal_dispatch.conf import settings
from signal_dispatch.entries import SETTING, Endpoint, EndpointProblem, parse
from signal_dispatch.exceptions import InvalidEndpoint, UnknownEndpoint


class Endpoints:
    """The endpoints by alias, each parsed when it is first asked for."""

    def __init__(self) -> None:
        self._parsed: dict[str, Endpoint] = {}

    def __getitem__(self, alias: str) -> Endpoint:
        """Return an endpoint; raises ``UnknownEndpoint``, or ``InvalidEndpoint`` for a fault."""
        if alias not in self._parsed:
            if alias not in settings.endpoints:
                raise UnknownEndpoint(_unknown_alias(alias))
            endpoint, problems = parse(alias, settings.endpoints[alias])
            if problems:
                raise problems[0]
            self._parsed[alias] = endpoint
        return self._parsed[alias]

    def __contains__(self, alias: object) -> bool:
        return alias in settings.endpoints

    def __iter__(self) -> Iterator[str]:
        return iter(settings.endpoints)

    def __len__(self) -> int:
        return len(settings.endpoints)

    def find(self, alias: str) -> Endpoint | None:
        """Return an endpoint; None for one that settings do not know, or whose entry is faulty.

        The system checks tell of the fault; a save is no place to raise it.
        """
        try:
            return self[alias]
        except InvalidEndpoint:
            return None

    def errors(self) -> list[EndpointProblem]:
        """Return every fault of every entry, for the system check."""
        return [problem for alias in self for problem in parse(alias, settings.endpoints[alias])[1]]

    def forget(self, *, setting: str = SETTING, **kwargs: Any) -> None:
        """Read everything anew from now on, if it is the endpoints that changed."""
        if setting == SETTING:
            self._parsed.clear()


def breaker_of(alias: str) -> Breaker | None:
    """Return the breaker of an endpoint; None where it has none, or is not known."""
    endpoint = endpoints.find(alias)
    return endpoint.breaker if endpoint else None


endpoints = Endpoints()
setting_changed.connect(endpoints.forget, dispatch_uid="signal_dispatch.endpoints")


def _unknown_alias(alias: str) -> str:
    close = get_close_matches(alias, list(settings.endpoints), n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    known = ", ".join(sorted(settings.endpoints)) or "none"
    return f"{SETTING} has no endpoint {alias!r}. {hint}It has: {known}."
