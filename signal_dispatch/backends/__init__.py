"""Who sends after the commit: the backends of this process, by their alias."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from django.core.signals import setting_changed
from django.db import connections, transaction
from django.utils.module_loading import import_string

from signal_dispatch import incidents
from signal_dispatch.backends.base import BaseBackend
from signal_dispatch.backends.deferred import DeferredBackend
from signal_dispatch.backends.immediate import InlineBackend
from signal_dispatch.conf import settings
from signal_dispatch.databases import is_in_test_case
from signal_dispatch.endpoints import endpoints
from signal_dispatch.exceptions import InvalidBackend, InvalidSettings, LibraryMissing
from signal_dispatch.outboxes import do_all
from signal_dispatch.queueing import Recorded

__all__ = ["BaseBackend", "Recorded", "backends"]

DEFAULT = "default"

_OURS = (
    "threads.ThreadsBackend",
    "deferred.DeferredBackend",
    "celery.CeleryBackend",
    "tasks.TasksBackend",
    "immediate.ImmediateBackend",
    "console.ConsoleBackend",
)


class Backends:
    """The configured backends, made when first asked for, one each in a process.

    Under test, deliveries are recorded and nothing is sent until a test mocks an endpoint; then
    ``released`` counts who asked for it.
    """

    def __init__(self) -> None:
        self._made: dict[str, BaseBackend] = {}
        #: How many mocks are active: hooks that run then deliver.
        self.released = 0
        #: How many tests asked for the real network: everything is then as in production.
        self.live = 0

    def __getitem__(self, alias: str) -> BaseBackend:
        """Return the configured backend. Raises ``InvalidBackend`` with the settings' path."""
        if alias not in self._made:
            # Two threads may come here at once: both must end up with the same one.
            self._made.setdefault(alias, _make(alias))
        return self._made[alias]

    def __iter__(self) -> Iterator[str]:
        return iter(settings.backends)

    def made(self) -> list[BaseBackend]:
        """Return the backends that exist in this process."""
        return list(self._made.values())

    @property
    def under_test(self) -> bool:
        """Whether this process runs tests, none of which asked for the real network."""
        return not self.live and _test_environment()

    @property
    def wants_hints(self) -> bool:
        """Whether a commit has to be told to anybody."""
        return self.released > 0 or not self.under_test

    def alias_for(self, endpoint: str) -> str:
        """Return which backend an endpoint's settings name; the default for unknown ones."""
        entry = endpoints.entry(endpoint)
        return entry.backend if entry else DEFAULT

    def for_endpoint(self, endpoint: str, using: str = "default") -> BaseBackend:
        """Return the backend that a new delivery goes to, in a test perhaps another one."""
        if _test_environment():
            if not (self.released or self.live):
                return self._recording
            if _inline_only(using):
                return self._raising if self.under_test else self._inline
        return self[self.alias_for(endpoint)]

    def load(self) -> None:
        """Make those that workers of other engines have to know from the start.

        Faulty ones are left to the checks and to whoever uses them.
        """
        with suppress(InvalidSettings):
            for alias in self:
                with suppress(InvalidSettings):
                    if getattr(_class_of(alias), "made_at_start", False):
                        self[alias]
        settings.forget()  # they count from when they are first used

    def start(self) -> None:
        """Start the backends that the endpoints name: this process serves requests."""
        for alias in {self.alias_for(endpoint) for endpoint in endpoints}:
            self[alias].start()

    def look_for_repairs(self, using: str) -> None:
        """Tell the backends, once it is committed, that there is work on many deliveries."""
        if self.under_test:
            return

        def hint() -> None:
            for alias in {self.alias_for(endpoint) for endpoint in endpoints}:
                self[alias].look_for_repairs()

        _once_committed(hint, using)

    def look_again(self, using: str) -> None:
        """Tell the backends of this process, once it is committed, that more may be called."""

        def hint() -> None:
            do_all([backend.look_again for backend in self.made()])

        _once_committed(hint, using)

    def committed(self, recorded: Sequence[Recorded], using: str, *, fresh: bool) -> None:
        """Tell each delivery's backend that it is committed."""
        groups: dict[int, tuple[BaseBackend, list[Recorded]]] = {}
        for item in recorded:
            backend = self.for_endpoint(item.delivery.endpoint, using)
            groups.setdefault(id(backend), (backend, []))[1].append(item)
        for backend, items in groups.values():
            backend.committed(items, using, fresh=fresh)

    def forget(self) -> None:
        """Stop the backends and read the settings again when they are next asked for."""
        try:
            do_all([backend.retire for backend in self.made()])
        finally:
            self._made.clear()
            incidents.forget()

    @cached_property
    def _recording(self) -> BaseBackend:
        return DeferredBackend("under test")

    @cached_property
    def _inline(self) -> BaseBackend:
        return InlineBackend("under test")

    @cached_property
    def _raising(self) -> BaseBackend:
        return InlineBackend("under test", raising=True)


def _once_committed(hint: Callable[[], None], using: str) -> None:
    connection = connections[using]
    # With autocommit off nobody says when it commits: it is found by whoever looks next.
    if connection.in_atomic_block or connection.get_autocommit():
        transaction.on_commit(hint, using=using, robust=True)


def _make(alias: str) -> BaseBackend:
    backend_class = _class_of(alias)
    try:
        backend: BaseBackend = backend_class(alias, **settings.backends[alias].get("OPTIONS", {}))
    except (TypeError, ValueError) as error:
        raise InvalidBackend(f'{_path(alias)}["OPTIONS"] can\'t be used: {error}') from error
    return backend


def _class_of(alias: str) -> Any:
    path = _path(alias)
    try:
        entry = settings.backends[alias]
    except KeyError as error:
        known = ", ".join(settings.backends) or "none"
        raise InvalidBackend(f"{path} does not exist. Known aliases: {known}.") from error
    try:
        return import_string(entry["BACKEND"])
    except LibraryMissing as error:
        raise InvalidBackend(f'{path}["BACKEND"] can\'t be used: {error}') from error
    except KeyError as error:
        sentence = 'lacks "BACKEND", the dotted path of a backend class.'
        raise InvalidBackend(f"{path} {sentence}") from error
    except ImportError as error:
        sentence = f"names no backend class: {str(error).removesuffix('.')}."
        raise InvalidBackend(f'{path}["BACKEND"] {sentence}{_guess(entry["BACKEND"])}') from error


def _guess(wanted: object) -> str:
    """Say which of ours was meant, or which there are."""
    ours = [f"{__name__}.{each}" for each in _OURS]
    if wanted in ours:
        return ""
    if close := get_close_matches(str(wanted), ours, n=1, cutoff=0.8):
        return f" Did you mean {close[0]!r}?"
    return f" Those of this package are {', '.join(ours)}."


def _path(alias: str) -> str:
    return f'SIGNAL_DISPATCH_BACKENDS["{alias}"]'


def _test_environment() -> bool:
    # setup_test_environment() leaves no public trace. This attribute is what Django itself asks
    # to find out whether it ran; tests/test_backends.py notices if that changes. The module is
    # not imported here, because a site that serves requests never loads it.
    module = sys.modules.get("django.test.utils")
    return module is not None and hasattr(module._TestState, "saved_data")  # noqa: SLF001 - see above


def _inline_only(using: str) -> bool:
    """Say whether threads would not see this test's rows, or would be locked out."""
    connection: Any = connections[using]
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        return True
    return is_in_test_case(using)


backends = Backends()


def _forget_changed(*, setting: str, **kwargs: Any) -> None:
    if setting == "SIGNAL_DISPATCH_BACKENDS":
        backends.forget()


setting_changed.connect(_forget_changed, dispatch_uid="signal_dispatch.backends")
