"""The remote APIs that settings name, by alias."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from django.core.signals import setting_changed

from signal_dispatch.breakers import Breaker
from signal_dispatch.conf import settings
from signal_dispatch.entries import SETTING, Endpoint, EndpointProblem, parse
from signal_dispatch.exceptions import InvalidEndpoint, InvalidEndpointKey, UnknownEndpoint
from signal_dispatch.resolved import Resolved

#: How many aliases with a key are remembered.
_MOST_KEYED = 10_000
_NEVER_IN_A_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Endpoints:
    """The endpoints by alias, each parsed when it is first asked for.

    An entry with a ``RESOLVER`` stands for many: "tenant:42" is one of those of "tenant". Its
    ENABLED and BACKEND are the entry's. Its other values are the entry's until it is resolved,
    which only ``resolve()`` does, and anew some time later.
    """

    def __init__(self) -> None:
        self._parsed: dict[str, Endpoint] = {}
        #: The entries of aliases with a sound key. Senders ask about each alias, again and again.
        self._keyed: dict[str, Endpoint] = {}
        self._resolved = Resolved()

    def __getitem__(self, alias: str) -> Endpoint:
        """Return what is known of an endpoint without asking anybody.

        Raises ``UnknownEndpoint``, ``InvalidEndpointKey``, or ``InvalidEndpoint`` for a fault.
        """
        entry = self._keyed.get(alias)
        if entry is None:
            name, colon, key = alias.partition(":")
            entry = self._entry(name, alias)
            if not entry.resolver:
                if colon:
                    raise UnknownEndpoint(_unknown_alias(alias))
                return entry
            if not key or _NEVER_IN_A_KEY.search(key):
                raise InvalidEndpointKey(_without_key(name, key))
            self._keep(alias, entry)
        return self._resolved.find(alias) or entry

    def __contains__(self, alias: object) -> bool:
        """Say whether settings name it, or the entry that it belongs to."""
        name, colon, _key = str(alias).partition(":")
        return name in settings.endpoints and (not colon or "RESOLVER" in settings.endpoints[name])

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

    def entry(self, alias: str) -> Endpoint | None:
        """Return the entry that an alias belongs to, with or without a key; None as ``find()``."""
        try:
            return self._entry(alias.partition(":")[0], alias)
        except InvalidEndpoint:
            return None

    def fault_of_key(self, alias: str) -> str:
        """Say what is wrong with the key of an alias whose entry has a RESOLVER; else ``""``."""
        try:
            self[alias]
        except InvalidEndpointKey as error:
            return str(error)
        except InvalidEndpoint:
            return ""
        return ""

    def resolve(self, alias: str) -> Endpoint:
        """Return the endpoint that a call goes to; where it has a RESOLVER, that may be asked.

        Raises ``EndpointUnresolved`` where there is none now, and what ``[]`` raises.
        """
        known = self[alias]
        if not known.resolver:
            return known
        return self._resolved.get(known, settings.endpoints[known.alias], alias)

    def is_open(self, alias: str) -> bool:
        """Say whether its RESOLVER has to be asked before a call can go there."""
        if ":" not in alias or (alias not in self._keyed and self.find(alias) is None):
            return False
        return self._resolved.is_open(alias)

    def errors(self) -> list[EndpointProblem]:
        """Return every fault of every entry, for the system check."""
        return [problem for alias in self for problem in parse(alias, settings.endpoints[alias])[1]]

    def forget(self, *, setting: str = SETTING, **kwargs: Any) -> None:
        """Read everything anew from now on, if it is the endpoints that changed."""
        if setting == SETTING:
            self._parsed, self._keyed = {}, {}
            self._resolved.forget()

    def _keep(self, alias: str, entry: Endpoint) -> None:
        if len(self._keyed) >= _MOST_KEYED:
            self._keyed = {}
        self._keyed[alias] = entry

    def _entry(self, name: str, alias: str) -> Endpoint:
        # Settings may change while another thread reads them: what it read then goes with the old.
        parsed = self._parsed
        if name not in parsed:
            if name not in settings.endpoints:
                raise UnknownEndpoint(_unknown_alias(alias))
            endpoint, problems = parse(name, settings.endpoints[name])
            if problems:
                raise problems[0]
            parsed[name] = endpoint
        return parsed[name]


def breaker_of(alias: str) -> Breaker | None:
    """Return the breaker of an endpoint; None where it has none, or is not known."""
    endpoint = endpoints.find(alias)
    return endpoint.breaker if endpoint else None


endpoints = Endpoints()
setting_changed.connect(endpoints.forget, dispatch_uid="signal_dispatch.endpoints")


def _without_key(name: str, key: str) -> str:
    fault = "the key has control characters" if key else f'name one of them, as "{name}:42"'
    return f'{SETTING}["{name}"] has a RESOLVER and stands for many endpoints: {fault}.'


def _unknown_alias(alias: str) -> str:
    close = get_close_matches(alias, list(settings.endpoints), n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    known = ", ".join(sorted(settings.endpoints)) or "none"
    return f"{SETTING} has no endpoint {alias!r}. {hint}It has: {known}."
