"""Keep the leases of what is in hand, and look after hints that never came."""

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from signal_dispatch import claims
from signal_dispatch.hand import Hand
from signal_dispatch.jobs import Job
from signal_dispatch.outbox import Lease
from signal_dispatch.outboxes import do_all

#: Seconds after which a lost hint is no longer waited for.
HINT_SECONDS = 5.0


class Renewer:
    """Renew leases before they end. Belongs to the bookkeeper's thread."""

    def __init__(self, hand: Hand, take: Callable[[Job], None]) -> None:
        self._hand = hand
        self._take = take
        #: When the next renewal is due, by ``monotonic()``.
        self.next_at = monotonic()

    def renew(self) -> None:
        """Renew what has grown old; what somebody else has by now is dropped."""
        hand, lease = self._hand, claims.own_lease()
        with hand.lock:
            stale = set(hand.stale)
            jobs = [j for j in hand.held() if j in stale or _is_old(j, lease.seconds)]

        def renew(using: str) -> None:
            mine = [job for job in jobs if job.using == using]
            self._renew(using, mine, [job for job in mine if job in stale], lease)

        do_all([partial(renew, using) for using in {job.using for job in jobs}])
        self.next_at = monotonic() + min(HINT_SECONDS, lease.seconds / 6)

    def _renew(self, using: str, jobs: Sequence[Job], stale: Sequence[Job], lease: Lease) -> None:
        hand, began = self._hand, monotonic()
        held = claims.renew(using, lease, [job.delivery for job in jobs])
        with hand.lock:
            for job in jobs:
                if job.delivery.pk in held:
                    job.since = began
                else:
                    hand.queue.drop(job)
        for job in stale:
            if job.delivery.pk in held:
                self._take(job)
            with hand.lock:
                hand.stale.remove(job)

    def check_watched(self) -> None:
        """Read back what was leased and never heard of: its hint may be lost."""
        hand, now, lease = self._hand, monotonic(), claims.own_lease()
        with hand.lock:
            overdue = {k: t for k, t in hand.watched.items() if now - t > HINT_SECONDS}

        def look(using: str) -> None:
            ids = [pk for alias, pk in overdue if alias == using]
            for delivery in claims.read_back(using, claims.holder(), ids):
                with hand.lock:  # the hint may have come meanwhile, and took it
                    since = hand.watched.pop((using, delivery.pk), None)
                    # Or SQLite gave the number of a row that was rolled back to this one.
                    in_hand = hand.keys()
                if since is not None and (using, delivery.pk) not in in_hand:
                    self._take(Job(delivery, using, since))

        do_all([partial(look, using) for using in {using for using, _pk in overdue}])
        # The rest is rolled back, or its transaction is still open: watched until the lease ends.
        with hand.lock:
            for key, since in overdue.items():
                if now - since >= lease.seconds:
                    hand.watched.pop(key, None)


def _is_old(job: Job, lease_seconds: float) -> bool:
    # One that is past its limit is left to whoever takes it: this process may hang for ever.
    return job.age > lease_seconds / 3 and monotonic() < job.renewed_until
