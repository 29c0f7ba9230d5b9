"""Take into the hand what is this process's to send: read back, or released from its lane."""

from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic

from signal_dispatch import claims, lanes
from signal_dispatch.hand import Hand
from signal_dispatch.jobs import Job
from signal_dispatch.models import Delivery
from signal_dispatch.outboxes import do_all
from signal_dispatch.sweeping import Sweeper

#: Seconds after which it looks for what it had no room for.
RETURN_SECONDS = 1.0


class Intake:
    """Give leased deliveries to the senders. Belongs to the bookkeeper's thread.

    ``batch`` is how many are read back at once.
    """

    def __init__(
        self, hand: Hand, sweeper: Sweeper, submit: Callable[[Job], bool], *, batch: int
    ) -> None:
        self._hand = hand
        self._sweeper = sweeper
        self._submit = submit
        self._batch = batch
        #: When blocked lanes are looked at again.
        self._next_look = monotonic()

    def next_look(self) -> float | None:
        """Return when blocked lanes are looked at again, by ``monotonic()``; None if none is."""
        return self._next_look if self._hand.blocked else None

    def read_back(self) -> None:
        """Take what was committed, as it was committed."""
        wanted: dict[str, dict[int, float]] = {}
        with self._hand.lock:
            for (using, pk), since in self._hand.to_read.items():
                mine = wanted.setdefault(using, {})
                if len(mine) < self._batch:
                    mine[pk] = since
        do_all([partial(self._read_back, using, mine) for using, mine in wanted.items()])

    def _read_back(self, using: str, wanted: Mapping[int, float]) -> None:
        hand = self._hand
        found = claims.read_back(using, claims.holder(), list(wanted))
        with hand.lock:
            in_hand = hand.keys()
        for delivery in found:
            key, since = (using, delivery.pk), wanted[delivery.pk]
            # Else it is another's row by this number, which SQLite gives out again after a
            # savepoint is rolled back: its own hint tells of it, or it was released from its lane.
            with hand.lock:
                mine = hand.to_read.get(key) == since and key not in in_hand
            if mine:
                self.take(delivery, using, since)
                with hand.lock:  # at once: what is taken must not be read back again
                    hand.to_read.pop(key, None)
        with hand.lock:
            for pk, since in wanted.items():
                if hand.to_read.get((using, pk)) == since:
                    del hand.to_read[using, pk]

    def look_again(self) -> None:
        """Take the next of lanes that may have become free."""
        hand = self._hand
        with hand.lock:
            if hand.blocked and monotonic() >= self._next_look:
                hand.to_look |= hand.blocked
                hand.blocked = set()
            # Taken off before the look: who asks from now on means what it may be too early for.
            left, hand.to_look = hand.to_look, set()
            hand.looking = len(left)

        def look(using: str) -> None:
            mine = {(alias, lane) for alias, lane in left if alias == using}
            self._release(using, {lane for _alias, lane in mine})
            left.difference_update(mine)

        try:
            do_all([partial(look, using) for using in {using for using, _lane in left}])
        finally:
            with hand.lock:
                hand.to_look |= left
                hand.looking = 0

    def _release(self, using: str, freed: set[str]) -> None:
        began = monotonic()
        released = lanes.release(using, freed, claims.own_lease())
        for delivery in released.taken:
            self.take(delivery, using, began)
        with self._hand.lock:
            if released.scheduled:
                self._sweeper.ask()
            if released.blocked:  # should that transaction be rolled back, nobody else looks
                if not self._hand.blocked:
                    self._next_look = monotonic() + RETURN_SECONDS
                self._hand.blocked |= {(using, lane) for lane in released.blocked}

    def take(self, delivery: Delivery, using: str, since: float, *, probe: bool = False) -> None:
        """Give a delivery to the senders whose lease began then at latest."""
        self.submit_or_return(Job(delivery, using, since, probe))

    def submit_or_return(self, job: Job) -> None:
        """Give a job to the senders, or its delivery to anybody where they have no room."""
        if not self._submit(job):
            claims.hand_back(job.using, claims.holder(), [job.claim])
            self._sweeper.expect(RETURN_SECONDS)  # perhaps nobody else is there to take it
