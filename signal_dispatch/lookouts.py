"""See what is due in the outboxes, for a process that sends nothing itself and tells others."""

from collections.abc import Callable
from math import inf
from threading import Lock
from time import monotonic

from django.db.models import Q

from signal_dispatch import bars, claims, lanes
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import DeliveryQuerySet, State
from signal_dispatch.naps import MAX_SLEEP_SECONDS
from signal_dispatch.outboxes import Outboxes
from signal_dispatch.scopes import Scope
from signal_dispatch.sweeping import REPAIR_SECONDS

#: Seconds that a first attempt may be due before its message counts as lost. Retries have none.
GRACE_SECONDS = 2.0
#: The sleep, in seconds, after others were told to look.
NAP_SECONDS = 1.0
#: Lanes that are looked at by one repair.
_LANES = 100


class Lookout:
    """Look into the outboxes when it is time. Belongs to one thread.

    ``call`` is told of each outbox where something is due. ``free`` is told of lanes that wait
    behind nothing: their releaser died on the way. While anything is scheduled it looks every
    ``sweep_seconds`` at least.
    """

    def __init__(
        self,
        scope: Callable[[], Scope],
        call: Callable[[str], object],
        free: Callable[[str, list[str]], None],
        *,
        sweep_seconds: float,
    ) -> None:
        self._scope = scope
        self._call = call
        self._free = free
        self._sweep_seconds = sweep_seconds
        self._outboxes = Outboxes(())
        #: For each outbox: since when the oldest was due at the last call, and the nap after it.
        self._called: dict[str, tuple[float, float]] = {}
        self._lock = Lock()
        #: When to look next, by ``monotonic()``.
        self.next_at = monotonic()
        self._next_repair = monotonic() + REPAIR_SECONDS

    def meet(self, using: str) -> None:
        """Note that there is an outbox in this database. For any thread."""
        self._outboxes.meet(using)

    def aliases(self) -> list[str]:
        """Return where there is an outbox to look into, without what rests just now."""
        return self._outboxes.awake()

    def expect(self, seconds: float) -> None:
        """Look in so many seconds at the latest. For any thread."""
        with self._lock:
            self.next_at = min(self.next_at, monotonic() + seconds)

    def count_open(self) -> int:
        """Count the deliveries that are due and may be sent, or are held by somebody."""
        count = 0
        for using in self._outboxes.awake():
            try:
                count += self._open_rows(using).count()
            except Exception as error:
                if not self._outboxes.is_left_out(using, error):
                    raise
        return count

    def look(self) -> None:
        """Look into each outbox, and note when to look again. One that refuses rests a while."""
        with self._lock:
            self.next_at = inf  # what is expected meanwhile makes it sooner
        repair = monotonic() >= self._next_repair
        if repair:
            self._next_repair = monotonic() + REPAIR_SECONDS
        wait = MAX_SLEEP_SECONDS
        for using in self._outboxes.awake():
            began = monotonic()
            try:
                wait = min(wait, self._look(using, repair=repair))
                self._outboxes.note_well(using)
            except Exception as error:  # noqa: BLE001 - logged
                if not self._outboxes.is_left_out(using, error):
                    wait = min(wait, self._outboxes.rest(using, error, monotonic() - began))
        self.expect(wait)

    def _look(self, using: str, *, repair: bool) -> float:
        """Call where something is due; return the seconds until the next look."""
        scope = self._scope()
        if repair and (idle := lanes.idle_lanes(scope.rows(using), _LANES)):
            self._free(using, idle)
        left = self._seconds_left(using, scope)
        if left > 0:
            self._called.pop(using, None)
            return min(self._sweep_seconds, left) if left < inf else MAX_SLEEP_SECONDS
        nap = self._nap(using, monotonic() + left)
        self._call(using)
        return nap

    def _open_rows(self, using: str) -> DeliveryQuerySet:
        """Select what is counted, in one statement: a worker may move one from state to state."""
        rows = self._scope().rows(using)
        rows = rows.exclude(endpoint__in=bars.standing(using).barred)
        busy = rows.filter(state=State.PENDING).exclude(lane="").values("lane")
        later = Q(held_by="", available_at__gt=DatabaseNow())
        pending = Q(state=State.PENDING) & ~later
        return rows.filter(pending | Q(state=State.WAITING) & ~Q(lane__in=busy))

    def _seconds_left(self, using: str, scope: Scope) -> float:
        """Return after how many seconds somebody should look; infinite where nothing is there."""
        found = claims.seconds_until_due(using, scope)
        barred = bars.standing(using).barred if found else {}
        lefts = (
            max(
                seconds if kind.retried else seconds + GRACE_SECONDS,
                barred.get(kind.endpoint, -inf),
            )
            for kind, seconds in found.items()
        )
        return min(lefts, default=inf)

    def _nap(self, using: str, since: float) -> float:
        """Return the sleep after a call: longer and longer while the same one stays the oldest."""
        last, nap = self._called.get(using, (-inf, 0.0))
        # Measured by two clocks, so a little later is no later.
        stays = since < last + NAP_SECONDS / 2
        nap = min(2 * nap, MAX_SLEEP_SECONDS) if stays else NAP_SECONDS
        self._called[using] = since, nap
        return nap
