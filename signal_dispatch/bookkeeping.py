"""The one thread that keeps a process's deliveries and the outbox in step."""

import logging
import random
import sys
from collections.abc import Callable, Iterable
from time import monotonic

from django.db import DatabaseError, Error, InterfaceError, OperationalError, connections

from signal_dispatch import claims, lanes, outbox
from signal_dispatch.claims import Scope
from signal_dispatch.conf import settings
from signal_dispatch.databases import outbox_aliases
from signal_dispatch.delivering import tell
from signal_dispatch.hand import MAX_UNRECORDED, Hand, Settled
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease, Settlement
from signal_dispatch.queueing import Job

logger = logging.getLogger("signal_dispatch")

#: Seconds that a settled delivery may wait for others to be recorded with.
FLUSH_SECONDS = 0.05
#: Seconds after which a lost hint is no longer waited for.
HINT_SECONDS = 5.0
#: Seconds without work after which the connection is closed.
KEEP_SECONDS = 1.0
#: The longest sleep, in seconds: what other processes leave behind is found after that.
MAX_SLEEP_SECONDS = 60.0
#: Seconds between two looks for lanes that wait behind nothing.
REPAIR_SECONDS = 300.0
#: The longest pause, in seconds, after the database refused.
MAX_BACKOFF_SECONDS = 10.0


class Bookkeeper:
    """Record what was settled, read back what was committed, keep leases, take what is due.

    The only thread that needs the database for deliveries without hooks.
    """

    def __init__(
        self,
        hand: Hand,
        scope: Callable[[], Scope],
        submit: Callable[[Job], bool],
        *,
        batch: int,
        sweep_seconds: float,
        max_sleep_seconds: float = MAX_SLEEP_SECONDS,
        using: Iterable[str] = (),
    ) -> None:
        self._hand = hand
        self._scope = scope
        self._submit = submit
        self._batch = batch
        self._sweep_seconds = sweep_seconds
        self._max_sleep_seconds = max_sleep_seconds
        self._using = tuple(using)
        now = monotonic()
        self._next_renewal = now
        self._next_sweep = now
        self._next_repair = now + REPAIR_SECONDS * random.random()  # noqa: S311 - spreads load
        self._last_work = now
        self._missing: set[str] = set()
        #: Counts the sweeps that found nothing due, for those who wait for that.
        self.calm_sweeps = 0
        #: Set when the senders had less room than there were due deliveries.
        self.more_is_due = False

    def run(self) -> None:
        """Work until the hand says stop; then record, hand back, and end."""
        failures = 0
        try:
            while not self._stopped():
                try:
                    self._step()
                    failures = 0
                except Exception as error:
                    failures += 1
                    self._back_off(error, failures)
            self._finish()
        finally:
            connections.close_all()

    def sweep_soon(self) -> None:
        """Look for due deliveries at once. The caller holds the lock."""
        self._next_sweep = 0.0
        self._hand.work.notify()

    # Waiting

    def _stopped(self) -> bool:
        with self._hand.lock:
            while not self._hand.stopping:
                now = monotonic()
                seconds = self._next_work(now) - now
                if seconds <= 0:
                    return False
                if self._connected() and now - self._last_work >= KEEP_SECONDS:
                    connections.close_all()
                if self._connected():
                    seconds = min(seconds, KEEP_SECONDS)
                self._hand.work.wait(seconds)
            return True

    def _next_work(self, now: float) -> float:
        hand = self._hand
        if hand.to_read or hand.to_look or hand.stale:
            return now
        times = [self._next_sweep]
        if hand.settled:
            alone = not (hand.queue.in_flight or len(hand.queue))
            full = len(hand.settled) >= MAX_UNRECORDED
            times.append(now if alone or full else hand.settled[0].since + FLUSH_SECONDS)
        if hand.watched or len(hand.queue) or hand.queue.in_flight or hand.settled:
            times.append(self._next_renewal)
        if self.more_is_due and hand.queue.room and len(hand.queue) < self._batch // 2:
            times.append(now)
        return min(times)

    def _connected(self) -> bool:
        return any(c.connection is not None for c in connections.all(initialized_only=True))

    # Working

    def _step(self) -> None:
        for connection in connections.all(initialized_only=True):
            connection.close_if_unusable_or_obsolete()
        self._last_work = monotonic()
        self._record()
        self._read_back()
        self._look_again()
        if monotonic() >= self._next_renewal:
            self._renew()
            self._check_watched()
        if monotonic() >= self._next_sweep or self.more_is_due:
            self._sweep()
        with self._hand.lock:
            self._hand.calm.notify_all()

    def _record(self) -> None:
        hand = self._hand
        with hand.lock:
            batch, hand.settled = hand.settled, []
            hand.recording = len(batch)
        left = batch
        try:
            for using in {s.job.using for s in batch}:
                mine = [s for s in batch if s.job.using == using]
                freed = self._record_on(using, mine)
                left = [s for s in left if s.job.using != using]
                self._release(using, freed)
        finally:
            with hand.lock:
                hand.settled = left + hand.settled
                hand.recording = 0
                hand.ready.notify_all()

    def _record_on(self, using: str, batch: list[Settled]) -> set[str]:
        """Write the batch, and return the lanes whose head is settled now."""
        new = [s.settlement for s in batch if not s.settlement.recorded]
        done = [s.settlement for s in batch if s.settlement.recorded]
        if new:
            accepted = _settle(new, using)
            tell(accepted, using)
            for settlement in accepted:
                if not settlement.finished:
                    self._next_sweep = min(self._next_sweep, monotonic() + settlement.delay + 0.01)
            done += accepted
        return {s.delivery.lane for s in done if s.finished and s.delivery.lane}

    def _release(self, using: str, freed: set[str]) -> None:
        if freed:
            began = monotonic()
            for delivery in lanes.release(using, freed, self._lease()):
                self._take(delivery, using, began)

    def _read_back(self) -> None:
        hand = self._hand
        with hand.lock:
            wanted = dict(list(hand.to_read.items())[: self._batch])
        for using in {using for using, _pk in wanted}:
            ids = [pk for alias, pk in wanted if alias == using]
            for delivery in claims.read_back(using, claims.holder(), ids):
                self._take(delivery, using, wanted[using, delivery.pk])
        with hand.lock:
            for key in wanted:
                hand.to_read.pop(key, None)

    def _look_again(self) -> None:
        hand = self._hand
        with hand.lock:
            wanted = set(hand.to_look)
        for using in {using for using, _lane in wanted}:
            self._release(using, {lane for alias, lane in wanted if alias == using})
        with hand.lock:
            hand.to_look -= wanted

    def _renew(self) -> None:
        hand, lease = self._hand, self._lease()
        self._next_renewal = monotonic() + min(HINT_SECONDS, lease.seconds / 6)
        with hand.lock:
            stale, hand.stale = hand.stale, []
            old = [job for job in hand.held() if job.age > lease.seconds / 3]
        jobs = old + stale
        for using in {job.using for job in jobs}:
            mine = [job for job in jobs if job.using == using]
            began = monotonic()
            held = claims.renew(using, lease, [job.delivery for job in mine])
            with hand.lock:
                for job in mine:
                    if job.delivery.pk in held:
                        job.since = began
                    else:
                        hand.queue.drop(job)
            for job in stale:
                if job.using == using and job.delivery.pk in held:
                    self._submit_or_return(job)

    def _check_watched(self) -> None:
        """Read back what was leased and never heard of: its hint may be lost."""
        hand, now = self._hand, monotonic()
        with hand.lock:
            overdue = {k: t for k, t in hand.watched.items() if now - t > HINT_SECONDS}
            for key in overdue:
                del hand.watched[key]
        for using in {using for using, _pk in overdue}:
            ids = [pk for alias, pk in overdue if alias == using]
            for delivery in claims.read_back(using, claims.holder(), ids):
                self._take(delivery, using, overdue.pop((using, delivery.pk)))
        # The rest is rolled back, or its transaction is still open: watched until the lease ends.
        lease = self._lease()
        with hand.lock:
            hand.watched.update({k: t for k, t in overdue.items() if now - t < lease.seconds})

    def _sweep(self) -> None:
        scope, found, sleep = self._scope(), 0, self._max_sleep_seconds
        repair = monotonic() >= self._next_repair
        if repair:
            self._next_repair = monotonic() + REPAIR_SECONDS
        for using in self._aliases():
            try:
                if repair:
                    self._release(using, set(lanes.idle_lanes(using, self._batch)))
                due = claims.seconds_until_due(using, scope)
                if due is not None and due <= 0:
                    found += self._claim(using, scope)
                if due is not None:
                    sleep = min(sleep, self._sweep_seconds, max(due, 0.05))
            except Exception as error:
                if not (
                    self._lacks_tables(using)
                    if isinstance(error, DatabaseError)
                    else _is_forbidden(error)
                ):
                    raise
        jitter = 1 - 0.2 * random.random()  # noqa: S311 - spreads load
        self._next_sweep = monotonic() + (sleep * jitter if sleep > 1 else sleep)
        if not found:
            with self._hand.lock:
                self.calm_sweeps += 1

    def _claim(self, using: str, scope: Scope) -> int:
        with self._hand.lock:
            room = min(self._batch, self._hand.queue.room)
        if not room:
            self.more_is_due = True
            return 1
        began = monotonic()
        taken = claims.claim(using, self._lease(), scope, room)
        self.more_is_due = len(taken) == room
        for delivery in taken:
            self._take(delivery, using, began)
        return len(taken)

    def _take(self, delivery: Delivery, using: str, since: float) -> None:
        self._submit_or_return(Job(delivery, using, since))

    def _submit_or_return(self, job: Job) -> None:
        if not self._submit(job):
            claims.hand_back(job.using, claims.holder(), [job.delivery.pk])

    # Ending

    def _finish(self) -> None:
        """Write what is known, and make what was not begun due at once for others."""
        hand = self._hand
        with hand.lock:
            unsent = [(j.using, j.delivery.pk) for j in hand.queue.clear() + hand.stale]
            unsent += [*hand.to_read, *hand.watched]
            looks = set(hand.to_look)
            hand.stale, hand.to_read, hand.watched, hand.to_look = [], {}, {}, set()
        try:
            self._record()
            for using in {using for using, _pk in unsent}:
                ids = [pk for alias, pk in unsent if alias == using]
                claims.hand_back(using, claims.holder(), ids)
            for using, lane in looks:
                lanes.release(using, [lane], None)
        except Error:
            logger.warning("The outbox could not be reached; leases will run out.", exc_info=True)
        with hand.lock:
            hand.calm.notify_all()

    def _back_off(self, error: Exception, failures: int) -> None:
        connections.close_all()
        pause = min(MAX_BACKOFF_SECONDS, 0.25 * 2**failures)
        # Whatever it was, this thread lives on: nobody else would take what is scheduled.
        logger.warning(
            "The outbox can't be reached (%s: %s); trying again in %.1f s.",
            type(error).__name__,
            error,
            pause,
            exc_info=None if isinstance(error, Error) else error,
            extra={"action": "outbox_unavailable"},
        )
        with self._hand.lock:
            if not self._hand.stopping:
                self._hand.work.wait_for(lambda: self._hand.stopping, pause)

    def _lease(self) -> Lease:
        return Lease(claims.holder(), settings.lease_seconds)

    def _aliases(self) -> list[str]:
        known = self._using or outbox_aliases(Delivery)
        return [alias for alias in known if alias not in self._missing]

    def _lacks_tables(self, using: str) -> bool:
        """Tell a database that was never migrated from one that is unwell."""
        connection = connections[using]
        if Delivery._meta.db_table in connection.introspection.table_names():
            return False
        self._missing.add(using)
        logger.warning("The database %r has no outbox: run 'migrate' on it.", using)
        return True


def _is_forbidden(error: Exception) -> bool:
    """Say whether a test case refuses the database: then it is nobody's to sweep."""
    module = sys.modules.get("django.test.testcases")
    return module is not None and isinstance(error, module.DatabaseOperationForbidden)


def _settle(settlements: list[Settlement], using: str) -> list[Settlement]:
    """Write the batch; where the database refuses one of them, the others alone."""
    try:
        return outbox.settle(settlements, using)
    except (OperationalError, InterfaceError):
        raise  # the database is unwell, not the batch
    except DatabaseError:
        logger.exception("A batch of %s records was refused.", len(settlements))
    accepted = []
    for settlement in settlements:
        try:
            accepted += outbox.settle([settlement], using)
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError:
            logger.exception("The attempt of delivery %s is lost.", settlement.delivery.pk)
            settlement.attempt = None
            accepted += outbox.settle([settlement], using)
    return accepted
