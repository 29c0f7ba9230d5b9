"""Send in the thread that commits: for scripts, where nobody waits for a page."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock, get_ident
from typing import ClassVar

from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage

from signal_dispatch import claims, lanes
from signal_dispatch.backends.base import BaseBackend
from signal_dispatch.bounds import Bounds
from signal_dispatch.conf import settings
from signal_dispatch.endpoints import endpoints
from signal_dispatch.inline import send_inline
from signal_dispatch.models import State
from signal_dispatch.outbox import Lease
from signal_dispatch.queueing import Recorded


class ImmediateBackend(BaseBackend):
    """Send after the outermost commit, before ``save()`` returns.

    An HTTP failure never raises; its retries need a worker or a later commit.
    """

    #: How many deliveries that an earlier commit left due are sent along with a commit.
    due_limit: ClassVar[int] = 10

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        #: Lanes whose first somebody had locked; if that is rolled back, nobody else looks.
        self._blocked: set[tuple[str, str]] = set()
        self._lock = Lock()

    def lease(self, using: str, endpoint: str = "") -> Lease:
        """Return a lease: the committing thread sends it itself."""
        # Each thread for itself: two that release lanes at once would both take what one moved.
        return Lease(f"{claims.holder()}:{get_ident()}", settings.lease_seconds)

    def committed(self, recorded: Sequence[Recorded], using: str, *, fresh: bool) -> None:
        """Send what was committed, then what is due since an earlier failure."""
        lease = self.lease(using)
        leased = [r.delivery for r in recorded if r.leased]
        if not fresh:
            leased = claims.read_back(using, lease.holder, [d.pk for d in leased])
        pending = (r for r in recorded if r.delivery.state == State.PENDING)
        due = [r.delivery.pk for r in pending if not r.leased]
        waiting = {r.delivery.lane for r in recorded if r.delivery.state == State.WAITING}
        bounds = Bounds(using)
        with self._looking_again(using, waiting) as blocked:
            send = partial(send_inline, using=using, lease=lease, blocked=blocked, bounds=bounds)
            send(leased)
            if due:
                send(claims.claim_ids(using, lease, due, only_due=True))
            if waiting:
                released = lanes.release(using, waiting, lease)
                blocked.difference_update(waiting - released.blocked)
                send(released.taken)
            send(bounds.claim(lease, self.scope(), self.due_limit))

    @contextmanager
    def _looking_again(self, using: str, waiting: set[str]) -> Iterator[set[str]]:
        """Add what was locked when an earlier commit looked; keep what is locked now."""
        with self._lock:
            again = {(alias, lane) for alias, lane in self._blocked if alias == using}
            self._blocked -= again
        waiting |= {lane for _alias, lane in again}
        blocked = set(waiting)  # until they are looked at: the database may refuse
        try:
            yield blocked
        finally:
            with self._lock:
                self._blocked |= {(using, lane) for lane in blocked}

    def check(self) -> list[CheckMessage]:
        """Warn outside of DEBUG: a request would wait for the endpoint."""
        if django_settings.DEBUG:
            return []
        return [
            checks.Warning(
                f'SIGNAL_DISPATCH_BACKENDS["{self.alias}"] is the ImmediateBackend: whoever '
                f"saves waits for the endpoint.",
                hint="Use signal_dispatch.backends.threads.ThreadsBackend for a site.",
                id="signal_dispatch.W003",
            )
        ]


class InlineBackend(BaseBackend):
    """Send within a test's own transaction, on its own connection."""

    def __init__(self, alias: str, *, raising: bool = False) -> None:
        super().__init__(alias)
        self._raising = raising

    def committed(self, recorded: Sequence[Recorded], using: str, *, fresh: bool) -> None:
        """Send what the test's commit hooks tell of."""
        if self._raising:  # a test makes and deletes what a RESOLVER looks up as it goes
            endpoints.forget()
        lease = claims.own_lease()
        mine = [r.delivery.pk for r in recorded]
        taken = claims.claim_ids(using, lease, mine, only_due=True)
        send_inline(taken, using, lease, raising=self._raising)
