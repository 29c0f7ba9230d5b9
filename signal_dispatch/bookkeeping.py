"""The one thread that keeps a process's deliveries and the outbox in step."""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

from django.db import Error, connections

from signal_dispatch import claims, lanes
from signal_dispatch.batches import settle_all
from signal_dispatch.claims import Scope
from signal_dispatch.concluding import tell
from signal_dispatch.hand import MAX_UNRECORDED, Hand, Settled
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import FIRST_EPOCH
from signal_dispatch.queueing import Job
from signal_dispatch.renewing import Renewer
from signal_dispatch.sweeping import Sweeper, pause_after

logger = logging.getLogger("signal_dispatch")

#: Seconds that a settled delivery may wait for others to be recorded with.
FLUSH_SECONDS = 0.05
#: Seconds without work after which the connection is closed.
KEEP_SECONDS = 1.0
#: Seconds after which it looks for what it had no room for.
RETURN_SECONDS = 1.0
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
        **sweeping: Any,
    ) -> None:
        self._hand = hand
        self._submit = submit
        self._batch = batch
        self._next_look = self._last_work = monotonic()
        #: Lanes to be looked at again, because somebody had their first row locked.
        self._blocked: set[tuple[str, str]] = set()
        self.renewer = Renewer(hand, self._submit_or_return)
        self.sweeper = Sweeper(hand, scope, self._take, batch=batch, **sweeping)

    def run(self) -> None:
        """Work until the hand closes; then record, hand back, and end."""
        failures = 0
        try:
            while self._wait_for_work():
                try:
                    self._step()
                    failures = 0
                except Exception as error:  # noqa: BLE001 - it must live on
                    failures += 1
                    self._back_off(error, failures)
            self._finish()
        finally:
            connections.close_all()

    # Waiting

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; False when the hand closes."""
        hand = self._hand
        while True:
            with hand.lock:
                if hand.closing:
                    return False
                now = monotonic()
                seconds = self._next_work(now) - now
                if seconds <= 0:
                    return True
                connected = _is_connected()
                keeping = now - self._last_work < KEEP_SECONDS
                if keeping or not connected:
                    hand.work.wait(min(seconds, KEEP_SECONDS) if connected else seconds)
            if connected and not keeping:  # without the lock: it may take its time
                connections.close_all()

    def _next_work(self, now: float) -> float:
        hand = self._hand
        if hand.to_read or hand.to_look or hand.stale or (hand.stopping and len(hand.queue)):
            return now
        times = [self.sweeper.next_at(now)]
        if self._blocked:
            times.append(self._next_look)
        if hand.settled:
            alone = not (hand.queue.in_flight or len(hand.queue))
            full = len(hand.settled) >= MAX_UNRECORDED
            times.append(now if alone or full else hand.settled[0].since + FLUSH_SECONDS)
        if hand.watched or len(hand.queue) or hand.queue.in_flight or hand.settled:
            times.append(self.renewer.next_at)
        return min(times)

    # Working

    def _step(self) -> None:
        for connection in connections.all(initialized_only=True):
            connection.close_if_unusable_or_obsolete()
        self._last_work = monotonic()
        self._record()
        self._read_back()
        self._look_again()
        self._return_unbegun()
        with self._hand.lock:
            now = monotonic()
            renewing = bool(self._hand.stale) or now >= self.renewer.next_at
            sweeping = now >= self.sweeper.next_at(now)
        if renewing:
            self.renewer.renew()
            self.renewer.check_watched()
        if sweeping:
            self.sweeper.sweep()
        with self._hand.lock:
            self._hand.calm.notify_all()

    def _record(self) -> None:
        hand = self._hand
        with hand.lock:
            batch, hand.settled = hand.settled, []
            hand.recording = len(batch)
        left, freed = batch, set()
        try:
            for using in {s.job.using for s in batch}:
                mine = [s for s in batch if s.job.using == using]
                freed |= {(using, lane) for lane in self._record_on(using, mine)}
                left = [s for s in left if s.job.using != using]
        finally:
            with hand.lock:
                hand.settled = left + hand.settled
                hand.to_look |= freed
                hand.recording = 0
                hand.ready.notify_all()

    def _record_on(self, using: str, batch: list[Settled]) -> set[str]:
        """Write the batch, and return the lanes whose head is settled now, or may be."""
        new = [s.settlement for s in batch if not s.settlement.recorded]
        done = [s.settlement for s in batch if s.settlement.recorded]
        if any(s.successor for s in done):
            with self._hand.lock:
                self.sweeper.ask()
        if new:
            accepted = settle_all(new, using)
            tell(accepted, using)
            for settlement in accepted:
                if not settlement.finished:
                    self.sweeper.expect(settlement.delay + 0.01)
            done += accepted
        # One that was refused may be finished: its own commit took place, unheard of.
        held = {s.delivery.pk for s in done if not s.finished}
        deliveries = [s.settlement.delivery for s in batch]
        return {d.lane for d in deliveries if d.lane and d.pk not in held}

    def _read_back(self) -> None:
        hand = self._hand
        with hand.lock:
            wanted = dict(list(hand.to_read.items())[: self._batch])
        for using in {using for using, _pk in wanted}:
            ids = [pk for alias, pk in wanted if alias == using]
            for delivery in claims.read_back(using, claims.holder(), ids):
                key = using, delivery.pk
                with hand.lock:  # else another's row by this number, which its own hint tells of
                    mine = hand.to_read.get(key) == wanted[key]
                if mine:
                    self._take(delivery, using, wanted[key])
                    with hand.lock:  # at once: what is taken must not be read back again
                        hand.to_read.pop(key, None)
        with hand.lock:
            for key, since in wanted.items():
                if hand.to_read.get(key) == since:
                    del hand.to_read[key]

    def _look_again(self) -> None:
        hand = self._hand
        with hand.lock:
            if self._blocked and monotonic() >= self._next_look:
                hand.to_look |= self._blocked
                self._blocked = set()
            # Taken off before the look: who asks from now on means what it may be too early for.
            left, hand.to_look = hand.to_look, set()
            hand.looking = len(left)
        try:
            for using in {using for using, _lane in left}:
                mine = {(alias, lane) for alias, lane in left if alias == using}
                self._release(using, {lane for _alias, lane in mine})
                left = left - mine
        finally:
            with hand.lock:
                hand.to_look |= left
                hand.looking = 0

    def _release(self, using: str, freed: set[str]) -> None:
        began = monotonic()
        released = lanes.release(using, freed, claims.own_lease())
        for delivery in released.taken:
            self._take(delivery, using, began)
        with self._hand.lock:
            if released.scheduled:
                self.sweeper.ask()
            if released.blocked:  # should that transaction be rolled back, nobody else looks
                if not self._blocked:
                    self._next_look = monotonic() + RETURN_SECONDS
                self._blocked |= {(using, lane) for lane in released.blocked}

    def _take(self, delivery: Delivery, using: str, since: float) -> None:
        self._submit_or_return(Job(delivery, using, since))

    def _submit_or_return(self, job: Job) -> None:
        if not self._submit(job):
            claims.hand_back(job.using, claims.holder(), [job.claim])
            self.sweeper.expect(RETURN_SECONDS)  # perhaps nobody else is there to take it

    # Ending

    def _return_unbegun(self) -> None:
        """Give what no sender will begin to others at once: calls in flight take their time."""
        hand = self._hand
        with hand.lock:
            left = hand.queue.clear() if hand.stopping else []
        try:
            for using in {job.using for job in left}:
                mine = [job.claim for job in left if job.using == using]
                claims.hand_back(using, claims.holder(), mine)
                left = [job for job in left if job.using != using]
        finally:
            with hand.lock:
                for job in left:
                    hand.queue.put(job)

    def _finish(self) -> None:
        """Write what is known, and make what was not begun due at once for others."""
        hand = self._hand
        with hand.lock:
            unsent = [(job.using, *job.claim) for job in hand.queue.clear() + hand.stale]
            unsent += [(*key, FIRST_EPOCH) for key in (*hand.to_read, *hand.watched)]
            hand.stale, hand.to_read, hand.watched = [], {}, {}
        try:
            self._record()
            for using in {using for using, _pk, _epoch in unsent}:
                mine = [(pk, epoch) for alias, pk, epoch in unsent if alias == using]
                claims.hand_back(using, claims.holder(), mine)
            with hand.lock:
                looks, hand.to_look = hand.to_look, set()
            for using, lane in looks:
                lanes.release(using, [lane], None)
        except Error as error:
            logger.warning(
                "The outbox can't be reached (%s: %s); leases will run out.",
                type(error).__name__,
                error,
                extra={"action": "outbox_unavailable"},
            )
        with hand.lock:
            hand.calm.notify_all()

    def _back_off(self, error: Exception, failures: int) -> None:
        connections.close_all()
        pause = pause_after(failures, MAX_BACKOFF_SECONDS)
        # Whatever it was, this thread lives on: nobody else would take what is scheduled.
        logger.warning(
            "The outbox can't be reached (%s: %s); trying again in %.1f s.",
            type(error).__name__,
            error,
            pause,
            exc_info=None if isinstance(error, Error) else error,
            extra={"action": "outbox_unavailable"},
        )
        self.sweeper.expect(pause)  # what was asked for may not have been looked at
        with self._hand.lock:
            self._hand.work.wait_for(lambda: self._hand.closing, pause)


def _is_connected() -> bool:
    return any(c.connection is not None for c in connections.all(initialized_only=True))
