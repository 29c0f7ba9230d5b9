"""Threads of the process that saves: nothing else has to run."""

from collections.abc import Sequence

from signal_dispatch import claims, readers
from signal_dispatch.backends.threaded import (
    ThreadedBackend,
    is_uwsgi_master,
    threads_can_run,
    threads_can_run_or_warn,
)
from signal_dispatch.jobs import Place
from signal_dispatch.outbox import Lease
from signal_dispatch.queueing import Recorded
from signal_dispatch.worker import Worker


class ThreadsBackend(ThreadedBackend[Worker]):
    """Send from threads of this process, and take over what dead processes left.

    ``max_senders``: threads that send at most. ``queue_size``, ``queue_bytes``: what is held in
    memory at most; beyond it rows stay in the table. ``idle_seconds``: after which a sender ends.
    ``drain_seconds``: how long the process sends on when it ends. ``sweep_seconds``: the longest
    sleep while anything is scheduled.

    Raises ``TypeError`` for any other option, and ``ValueError`` for what can't be its value.
    """

    left_to = "the site's processes, or by dispatch_worker"
    options = {
        "max_senders": readers.count,
        "queue_size": readers.count,
        "queue_bytes": readers.count,
        "idle_seconds": readers.seconds,
        "drain_seconds": readers.seconds,
        "sweep_seconds": readers.seconds,
    }

    def make(self) -> Worker:
        """Return the bookkeeper and the senders."""
        from signal_dispatch.backends import backends

        # Mocks and the real network never share one: each ends its threads.
        testing = backends.under_test
        return Worker(self.scope, keep_errors=testing, watching=not testing, **self._options)

    def lease(self, using: str, endpoint: str) -> Lease | None:
        """Return a lease while there is room and threads can run."""
        if not threads_can_run_or_warn():
            return None
        has_room = self._current().has_room_for(Place(using, endpoint))
        return claims.own_lease() if has_room else None

    def remember(self, recorded: Recorded) -> None:
        """Note a lease before its transaction commits."""
        if recorded.leased:
            self._current().remember(recorded)

    def committed(self, recorded: Sequence[Recorded], using: str, *, fresh: bool) -> None:
        """Hand what is committed to the threads."""
        if threads_can_run() and not is_uwsgi_master():
            self._current().committed(recorded, using, fresh=fresh)
