"""Threads of the process that saves: nothing else has to run."""

import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from django.core import checks
from django.core.checks import CheckMessage

from signal_dispatch import claims, readers
from signal_dispatch.backends.base import BaseBackend
from signal_dispatch.jobs import Place
from signal_dispatch.outbox import Lease
from signal_dispatch.queueing import Recorded
from signal_dispatch.worker import Worker

logger = logging.getLogger("signal_dispatch")

_OPTIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "max_senders": readers.count,
    "queue_size": readers.count,
    "queue_bytes": readers.count,
    "idle_seconds": readers.seconds,
    "drain_seconds": readers.seconds,
    "sweep_seconds": readers.seconds,
}


class ThreadsBackend(BaseBackend):
    """Send from threads of this process, and take over what dead processes left.

    ``max_senders``: threads that send at most. ``queue_size``, ``queue_bytes``: what is held in
    memory at most; beyond it rows stay in the table. ``idle_seconds``: after which a sender ends.
    ``drain_seconds``: how long the process sends on when it ends. ``sweep_seconds``: the longest
    sleep while anything is scheduled.

    Raises ``TypeError`` for any other option, and ``ValueError`` for what can't be its value.
    """

    def __init__(self, alias: str, /, *, drain_seconds: float = 5.0, **options: Any) -> None:
        super().__init__(alias)
        # Now, not at the first save.
        _refuse_faulty(type(self).__name__, {"drain_seconds": drain_seconds, **options})
        self._drain_seconds = drain_seconds
        self._options = options
        self._made_by = os.getpid()
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        hook = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: _call(hook))

    def lease(self, using: str, endpoint: str) -> Lease | None:
        """Return a lease while there is room and threads can run."""
        if not _threads_can_run_or_warn():
            return None
        has_room = self._current().has_room_for(Place(using, endpoint))
        return claims.own_lease() if has_room else None

    def remember(self, recorded: Recorded) -> None:
        """Note a lease before its transaction commits."""
        if recorded.leased:
            self._current().remember(recorded)

    def committed(self, recorded: Sequence[Recorded], using: str, *, fresh: bool) -> None:
        """Hand what is committed to the threads."""
        if threads_can_run() and not _is_uwsgi_master():
            self._current().committed(recorded, using, fresh=fresh)

    def look_for_repairs(self) -> None:
        """Let the bookkeeper look at once."""
        if threads_can_run() and not _is_uwsgi_master():
            self._current().look_for_repairs()

    def look_again(self) -> None:
        """Let the bookkeeper look at once, where there is one: nothing starts for this."""
        # Without the lock, which may have been held by somebody when this process was forked.
        worker = self._worker if self._made_by == os.getpid() else None
        if worker is not None:
            worker.look_again()

    def start(self) -> None:
        """Start the bookkeeper, so that a site that only reads takes over what others left."""
        if _threads_can_run_or_warn():
            self._current().start()

    def drain(self, timeout: float) -> None:
        """Wait until nothing is in flight or due. Raises ``TimeoutError``, or what a thread met."""
        self._current().drain(timeout)

    def finish(self) -> bool:
        """Send what is in hand for up to ``drain_seconds``, then end the threads, if there are."""
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

    def _current(self) -> Worker:
        # uWSGI forks without Python's hooks, so the pid is looked at each time.
        if self._made_by != os.getpid():
            self._after_fork()
        from signal_dispatch.backends import backends

        with self._lock:
            if self._worker is None:
                # Mocks and the real network never share one: each ends its threads.
                testing = backends.under_test
                self._worker = Worker(
                    self.scope, keep_errors=testing, watching=not testing, **self._options
                )
                atexit.register(self._at_exit, self._worker, os.getpid())
            return self._worker

    def _parted_from(self) -> Worker | None:
        """Return the worker of this process, if there is one, and have it no longer."""
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

    def _at_exit(self, worker: Worker, pid: int) -> None:
        if pid == os.getpid():
            worker.finish(self._drain_seconds)


def threads_can_run() -> bool:
    """Say whether a thread gets time between requests: not under uWSGI without threads."""
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None:
        return True
    options = getattr(uwsgi, "opt", {})
    return any(options.get(name) or options.get(name.encode()) for name in _THREAD_OPTIONS)


def _threads_can_run_or_warn() -> bool:
    if not threads_can_run():
        _warn_once(os.getpid())
        return False
    return not _is_uwsgi_master()


def _is_uwsgi_master() -> bool:
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


def _refuse_faulty(backend: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise TypeError(f"{backend} takes no option {name!r}. It takes {known}.")
        try:
            _OPTIONS[name](value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} {error}") from error


_THREAD_OPTIONS = ("enable-threads", "threads")


def _call(hook: "weakref.WeakMethod[Any]") -> None:
    method = hook()
    if method is not None:
        method()
