"""Find what is due in the table: tried before, spilled, or left by a process that is gone."""

import logging
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from django.db import DatabaseError, Error, connections

from signal_dispatch import claims, lanes
from signal_dispatch.claims import Kind, Scope
from signal_dispatch.databases import outbox_aliases
from signal_dispatch.hand import Hand
from signal_dispatch.models import Delivery
from signal_dispatch.registry import registry

logger = logging.getLogger("signal_dispatch")

#: Told of each delivery that is found, its outbox, and when its lease began at latest.
Take = Callable[[Delivery, str, float], None]

#: The sleep, in seconds, while nothing is scheduled, up to a fifth longer: what other processes
#: leave behind is found after that.
MAX_SLEEP_SECONDS = 60.0
#: The shortest, after something was found.
MIN_SLEEP_SECONDS = 0.05
#: Seconds between two looks for lanes that wait behind nothing.
REPAIR_SECONDS = 300.0
#: The longest rest, in seconds, of a database that can't be reached while others can.
MAX_REST_SECONDS = 10.0


class Sweeper:
    """Look at the outboxes when it is time or asked for, and take what is due.

    Belongs to the bookkeeper's thread; what other threads may call says so.
    """

    def __init__(
        self,
        hand: Hand,
        scope: Callable[[], Scope],
        *,
        batch: int,
        sweep_seconds: float,
        max_sleep_seconds: float = MAX_SLEEP_SECONDS,
        using: Iterable[str] = (),
        after_look: Callable[[str], None] | None = None,
    ) -> None:
        self._hand = hand
        self._scope = scope
        self._batch = batch
        self._sweep_seconds = sweep_seconds
        self._max_sleep_seconds = max_sleep_seconds
        self._using = tuple(using)
        self._after_look = after_look
        #: Where this process recorded something, whatever its routers say by now.
        self._met: set[str] = set()
        self._resting: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._next = monotonic()
        self._next_repair = monotonic() + REPAIR_SECONDS * _share()
        #: Whether the senders had less room than there were due deliveries.
        self._more_is_due = False
        #: Numbers of sweeps: asked for, begun last, and the last one that found nothing due.
        self._asked = self._begun = self._calm = 0

    # For any thread that holds the lock

    def ask(self) -> None:
        """Look for due deliveries at once."""
        # A sweep that is under way may have looked already: the next one is meant.
        self._asked = self._begun + 1
        self._hand.work.notify()

    def meet(self, using: str) -> None:
        """Note that there is an outbox in this database."""
        self._met.add(using)

    @property
    def found_nothing(self) -> bool:
        """Whether a sweep that began after the last ``ask()`` found nothing due."""
        return self._calm >= self._asked

    def next_at(self, now: float) -> float:
        """Return when the next sweep is due, by ``monotonic()``."""
        queue = self._hand.queue
        if self._hand.stopping or self._hand.finishing:
            return now + MAX_SLEEP_SECONDS
        if self._asked > self._begun:
            return now
        if self._more_is_due and queue.room and len(queue) < self._batch // 2:
            return now
        return self._next

    # For the bookkeeper

    def expect(self, seconds: float) -> None:
        """Note that something is due again after so many seconds."""
        self._next = min(self._next, monotonic() + seconds)

    def sweep(self, take: Take) -> None:
        """Look into every outbox. One that refuses rests a while, and the others go on.

        Raises what the database raised only where none could be looked into.
        """
        with self._hand.lock:
            self._begun += 1
        scope, repair = self._scope(), monotonic() >= self._next_repair
        self._more_is_due = False
        if repair:
            self._next_repair = monotonic() + REPAIR_SECONDS
        reached, refused, took = {}, {}, {}
        for using in self._aliases():
            began = monotonic()
            try:
                reached[using] = self._sweep_one(using, scope, take, repair=repair)
                self._failures.pop(using, None)
                if self._after_look is not None:
                    self._after_look(using)
            except Exception as error:  # noqa: BLE001 - raised below, or logged
                if not self._is_left_out(using, error):
                    refused[using], took[using] = error, monotonic() - began
        if refused and not reached:
            raise next(iter(refused.values()))
        waits = [self._max_sleep_seconds, *reached.values()]
        waits += [self._rest(using, error, took[using]) for using, error in refused.items()]
        wait = max(MIN_SLEEP_SECONDS, min(waits))
        self._next = monotonic() + self._spread(wait)
        if min(waits) > 0:
            with self._hand.lock:
                self._calm = self._begun

    def _spread(self, wait: float) -> float:
        """Keep processes from looking all at once: a little later if idle, else a little sooner."""
        if wait >= self._max_sleep_seconds:
            return wait * (1 + 0.2 * _share())
        return wait * (1 - 0.2 * _share()) if wait > 1 else wait

    def _crowded(self, using: str) -> frozenset[Kind]:
        """Return of what there is enough in hand: an endpoint that hangs keeps no other out."""
        with self._hand.lock:
            crowded = self._hand.queue.crowded(using, self._batch // 2)
        self._more_is_due |= bool(crowded)
        return crowded

    def _sweep_one(self, using: str, scope: Scope, take: Take, *, repair: bool) -> float:
        """Take what is due; return the seconds until the next look, 0 where something was."""
        if repair:
            idle = lanes.idle_lanes(scope.rows(using), self._batch)
            with self._hand.lock:
                self._hand.to_look |= {(using, lane) for lane in idle}
        seconds = claims.seconds_until_due(using, scope, without=self._crowded(using))
        due = claims.due_kinds(seconds)
        if due:
            self._claim(using, scope, due, take)
            return 0.0
        return min(self._sweep_seconds, *seconds.values()) if seconds else self._max_sleep_seconds

    def _claim(self, using: str, scope: Scope, due: Sequence[Kind], take: Take) -> None:
        with self._hand.lock:
            room = min(self._batch, self._hand.queue.room)
        if not room:
            self._more_is_due = True
            return
        began = monotonic()
        lease = claims.own_lease()
        taken = claims.claim(using, lease, scope, room, due=due)
        self._more_is_due |= len(taken) == room
        for delivery in taken:
            take(delivery, using, began)

    # Which outboxes there are

    def _aliases(self) -> list[str]:
        known = self._using or self._met.union(
            outbox_aliases(Delivery, {dispatch.model for dispatch in registry})
        )
        now = monotonic()
        return [alias for alias in sorted(known) if self._resting.get(alias, now) <= now]

    def _rest(self, using: str, error: Exception, took: float) -> float:
        """Leave an unwell database alone for a while, and return for how many seconds.

        The longer it ``took`` to refuse, the longer: it keeps the others waiting meanwhile.
        """
        connections[using].close()
        failures = self._failures[using] = self._failures.get(using, 0) + 1
        rest = max(pause_after(failures, MAX_REST_SECONDS), min(10 * took, REPAIR_SECONDS))
        self._resting[using] = monotonic() + rest
        logger.warning(
            "The outbox of the database %r can't be reached (%s); trying again in %.1f s.",
            using,
            error,
            rest,
            extra={"action": "outbox_unavailable"},
        )
        return rest

    def _is_left_out(self, using: str, error: Exception) -> bool:
        """Say whether the database has no outbox for us, rather than being unwell."""
        if isinstance(error, DatabaseError):
            return self._lacks_tables(using)
        # A test case refuses this database: then it is nobody's to sweep.
        module = sys.modules.get("django.test.testcases")
        return module is not None and isinstance(error, module.DatabaseOperationForbidden)

    def _lacks_tables(self, using: str) -> bool:
        try:
            tables = connections[using].introspection.table_names()
        except Error:
            return False
        if Delivery._meta.db_table in tables:
            return False
        self._resting[using] = monotonic() + REPAIR_SECONDS
        logger.warning("The database %r has no outbox: run 'migrate' on it.", using)
        return True


def pause_after(failures: int, longest: float) -> float:
    """Return how many seconds to leave a database alone after so many failures in a row."""
    # Bounded before it is raised: days of failures would be more than a float can hold.
    return min(longest, 0.25 * 2.0 ** min(failures, 20))


def _share() -> float:
    return random.random()  # noqa: S311 - spreads load
