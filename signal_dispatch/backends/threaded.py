"""What backends with threads of their own have in common: a lazy start, forks, the end."""

import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, Generic, Protocol, TypeVar

from django.core import checks
from django.core.checks import CheckMessage

from signal_dispatch.backends.base import BaseBackend

logger = logging.getLogger("signal_dispatch")


class Threads(Protocol):
    """The threads of one process."""

    def look_for_repairs(self) -> None:
        """Look at once for work on many deliveries."""

    def start(self) -> bool:
        """Start; False where no thread can be had."""

    def drain(self, timeout: float) -> None:
        """Wait until nothing is in flight or due. Raises ``TimeoutError``."""

    def look_again(self) -> None:
        """Look at once for what is due, where a thread runs."""

    def finish(self, timeout: float) -> list[BaseException]:
        """Do what is in hand for up to so many seconds, then stop; return what was raised."""

    def stop(self, timeout: float) -> list[BaseException]:
        """End, and return what was raised."""


ThreadsT = TypeVar("ThreadsT", bound=Threads)


class ThreadedBackend(BaseBackend, Generic[ThreadsT]):
    """Base of the backends that start threads with the first delivery or request of a process."""

    #: How each option is read; ``drain_seconds`` is how long the process goes on when it ends.
    options: Mapping[str, Callable[[Any], Any]] = {}

    def __init__(self, alias: str, /, *, drain_seconds: float = 5.0, **options: Any) -> None:
        super().__init__(alias)
        # Now, not at the first save.
        _refuse_faulty(self, {"drain_seconds": drain_seconds, **options})
        self._drain_seconds = drain_seconds
        self._options = options
        self._made_by = os.getpid()
        self._lock = threading.Lock()
        self._worker: ThreadsT | None = None
        self._retired = False
        hook = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: _call(hook))

    def make(self) -> ThreadsT:
        """Return the threads of this process, none of which runs yet."""
        raise NotImplementedError

    def look_for_repairs(self) -> None:
        """Let the bookkeeping thread look at once."""
        if threads_can_run() and not is_uwsgi_master():
            self._current().look_for_repairs()

    def look_again(self) -> None:
        """Let the bookkeeping thread look at once, where there is one: nothing starts for this."""
        # Without the lock, which may have been held by somebody when this process was forked.
        worker = self._worker if self._made_by == os.getpid() else None
        if worker is not None:
            worker.look_again()

    def start(self) -> None:
        """Start the bookkeeping thread: a site that only reads takes over what others left."""
        if threads_can_run_or_warn():
            self._current().start()

    def drain(self, timeout: float) -> None:
        """Wait until nothing is in flight or due. Raises ``TimeoutError``, or what a thread met."""
        self._current().drain(timeout)

    def finish(self) -> bool:
        """Do what is in hand for up to ``drain_seconds``, then end the threads, if there are."""
        worker = self._parted_from()
        errors = worker.finish(self._drain_seconds) if worker is not None else []
        if errors:
            raise errors[0]
        return worker is not None

    def stop(self, timeout: float = 5.0) -> None:
        """End the threads of this process; the next delivery starts new ones."""
        worker = self._parted_from()
        errors = worker.stop(timeout) if worker is not None else []
        if errors:
            raise errors[0]

    def retire(self) -> None:
        """End the threads, and start none for a task or a hook that is still under way."""
        self._retired = True
        self.stop()

    def check(self) -> list[CheckMessage]:
        """Warn where uWSGI runs without threads."""
        if threads_can_run():
            return []
        return [
            checks.Warning(
                f'SIGNAL_DISPATCH_BACKENDS["{self.alias}"] needs threads, and uWSGI runs without.',
                hint="Start uWSGI with --enable-threads, or run 'manage.py dispatch_worker' and "
                "use signal_dispatch.backends.deferred.DeferredBackend.",
                id="signal_dispatch.W002",
            )
        ]

    def _current(self) -> ThreadsT:
        # uWSGI forks without Python's hooks, so the pid is looked at each time.
        if self._made_by != os.getpid():
            self._after_fork()
        with self._lock:
            if self._worker is None:
                self._worker = self.make()
                if self._retired:  # nobody would end what this one starts
                    self._worker.stop(0)
                atexit.register(self._at_exit, self._worker, os.getpid())
            return self._worker

    def _parted_from(self) -> ThreadsT | None:
        """Return the threads of this process, if there are any, and have them no longer."""
        if self._made_by != os.getpid():
            return None
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            atexit.unregister(self._at_exit)
        return worker

    def _after_fork(self) -> None:
        """Begin anew: threads don't survive a fork, and a lock may be held by one that is gone."""
        self._lock = threading.Lock()
        self._worker = None
        self._made_by = os.getpid()

    def _at_exit(self, worker: ThreadsT, pid: int) -> None:
        if pid == os.getpid():
            worker.finish(self._drain_seconds)


def threads_can_run() -> bool:
    """Say whether a thread gets time between requests: not under uWSGI without threads."""
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None:
        return True
    options = getattr(uwsgi, "opt", {})
    return any(options.get(name) or options.get(name.encode()) for name in _THREAD_OPTIONS)


def threads_can_run_or_warn() -> bool:
    """Say whether threads may be started here, and warn once where they would get no time."""
    if not threads_can_run():
        _warn_once(os.getpid())
        return False
    return not is_uwsgi_master()


def is_uwsgi_master() -> bool:
    """Say whether this is the process that uWSGI forks its workers from.

    A thread that holds Python's lock just then makes the worker hang (unbit/uwsgi#2387). What is
    saved here, while the site is loaded, is for the workers.
    """
    masterpid = getattr(sys.modules.get("uwsgi"), "masterpid", None)
    return masterpid is not None and masterpid() == os.getpid()


@cache
def _warn_once(pid: int) -> None:
    logger.warning(
        "uWSGI runs without threads, so process %s sends nothing: start uWSGI with "
        "--enable-threads, or run 'manage.py dispatch_worker'.",
        pid,
        extra={"action": "no_threads"},
    )


def _refuse_faulty(backend: ThreadedBackend[Any], options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in backend.options:
            known = ", ".join(backend.options)
            raise TypeError(f"{type(backend).__name__} takes no option {name!r}. It takes {known}.")
        try:
            backend.options[name](value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} {error}") from error


_THREAD_OPTIONS: Final = ("enable-threads", "threads")


def _call(hook: "weakref.WeakMethod[Any]") -> None:
    method = hook()
    if method is not None:
        method()
