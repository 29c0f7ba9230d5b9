"""Write what became of the deliveries in hand into the outbox, batch by batch."""

from functools import partial

from signal_dispatch.batches import settle_all
from signal_dispatch.concluding import tell
from signal_dispatch.hand import Hand, Settled
from signal_dispatch.outboxes import do_all
from signal_dispatch.sweeping import Sweeper


class Recorder:
    """Record what was settled. Belongs to the bookkeeper's thread."""

    def __init__(self, hand: Hand, sweeper: Sweeper) -> None:
        self._hand = hand
        self._sweeper = sweeper

    def record(self) -> None:
        """Write all that is settled; what the database refuses is kept for the next time."""
        hand = self._hand
        with hand.lock:
            batch, hand.settled = hand.settled, []
            hand.recording = len(batch)
        left: dict[str, list[Settled]] = {s.job.using: [] for s in batch}
        freed: set[tuple[str, str]] = set()
        for each in batch:
            left[each.job.using].append(each)

        def write(using: str) -> None:
            freed.update((using, lane) for lane in self._record_on(using, left[using]))
            left[using] = []

        try:
            do_all([partial(write, using) for using in left])
        finally:
            with hand.lock:
                hand.settled = [s for some in left.values() for s in some] + hand.settled
                hand.to_look |= freed
                hand.recording = 0
                hand.ready.notify()  # whoever takes a job sees to it that the next one is taken

    def _record_on(self, using: str, batch: list[Settled]) -> set[str]:
        """Write the batch, and return the lanes whose head is settled now, or may be."""
        new = [s.settlement for s in batch if not s.settlement.recorded]
        done = [s.settlement for s in batch if s.settlement.recorded]
        if any(s.successor for s in done):
            with self._hand.lock:
                self._sweeper.ask()
        if new:
            accepted = settle_all(new, using)
            tell(accepted, using)
            for settlement in accepted:
                if not settlement.finished:
                    self._sweeper.expect(settlement.delay + 0.01)
            done += accepted
        # One that was refused may be finished: its own commit took place, unheard of.
        held = {s.delivery.pk for s in done if not s.finished}
        deliveries = [s.settlement.delivery for s in batch]
        return {d.lane for d in deliveries if d.lane and d.pk not in held}
