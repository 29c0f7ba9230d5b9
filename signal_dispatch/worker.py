"""Threads that send: one bookkeeper, and senders that come and go with the work."""

import threading
from collections.abc import Callable, Iterable, Sequence
from math import inf
from time import monotonic

from signal_dispatch import patience
from signal_dispatch.bookkeeping import Bookkeeper
from signal_dispatch.hand import Hand
from signal_dispatch.jobs import Job, Place
from signal_dispatch.models import State
from signal_dispatch.naps import MAX_SLEEP_SECONDS
from signal_dispatch.queueing import Recorded
from signal_dispatch.scopes import Scope
from signal_dispatch.sender_threads import SenderThreads
from signal_dispatch.starting import start_thread


class Worker:
    """The threads of one process, and what they have in hand.

    ``max_senders`` threads send; ``queue_size`` deliveries of ``queue_bytes`` in all are held in
    memory; a sender ends after ``idle_seconds`` without work. While anything is scheduled the
    table is looked at every ``sweep_seconds`` at least, else every ``max_sleep_seconds``;
    ``after_look`` is called with each alias whose outbox could be looked into.
    ``keep_errors``: what hooks raise is kept for whoever drains or stops, as under test.
    ``watching``: breakers, pauses and rates are heeded; what a rate holds back for more than
    ``rate_patience`` seconds is left in the table. ``eager``: after a find the table is
    looked at again soon, because no hint tells of what others record.

    Safe to call from any thread. Nothing runs until ``start()`` or the first job.
    """

    def __init__(
        self,
        scope: Callable[[], Scope],
        *,
        max_senders: int = 16,
        queue_size: int = 10_000,
        queue_bytes: int = 64 * 1024 * 1024,
        idle_seconds: float = 30.0,
        sweep_seconds: float = 15.0,
        max_sleep_seconds: float = MAX_SLEEP_SECONDS,
        using: Iterable[str] = (),
        after_look: Callable[[str], None] | None = None,
        keep_errors: bool = False,
        watching: bool = True,
        eager: bool = False,
        rate_patience: float = inf,
    ) -> None:
        patience.connect()
        self._hand = Hand(queue_size, queue_bytes, watching=watching, rate_patience=rate_patience)
        self._thread: threading.Thread | None = None
        self._bookkeeper = Bookkeeper(
            self._hand,
            scope,
            self.submit,
            batch=4 * max_senders,
            sweep_seconds=sweep_seconds,
            max_sleep_seconds=max_sleep_seconds,
            using=using,
            after_look=after_look,
            eager=eager,
        )
        self._senders = SenderThreads(
            self._hand,
            self._bookkeeper.note_settled,
            most=max_senders,
            idle_seconds=idle_seconds,
            keep_errors=keep_errors,
        )

    def look_for_repairs(self) -> None:
        """Look at once for work on many deliveries that a person asked for."""
        with self._hand.lock:
            self._bookkeeper.repairer.ask()
            self._started()
            self._hand.work.notify()

    def look_again(self) -> None:
        """Look at once for what is due, where anything looks at all."""
        with self._hand.lock:
            self._bookkeeper.sweeper.ask()

    def slowed(self) -> set[str]:
        """Return the endpoints whose ``RATE`` is used up just now."""
        with self._hand.lock:
            return self._hand.health.slowed()

    @property
    def is_failing(self) -> bool:
        """Whether no outbox could be worked on the last time."""
        return self._bookkeeper.met is not None

    def faults(self) -> list[str]:
        """Say of each outbox that could not be looked into the last time why that is."""
        with self._hand.lock:
            return self._bookkeeper.sweeper.faults()

    # Told by those who save

    def start(self) -> bool:
        """Start the bookkeeper; False where no thread can be had any more."""
        with self._hand.lock:
            return self._started()

    def has_room_for(self, place: Place) -> bool:
        """Say whether a new delivery can be taken, rather than left in the table."""
        hand = self._hand
        with hand.lock:
            return not hand.stopping and hand.has_room_for(place) and self._started()

    def remember(self, recorded: Recorded) -> None:
        """Note a lease before its transaction commits, should the hint get lost."""
        if recorded.leased:
            key = recorded.using, recorded.delivery.pk
            with self._hand.lock:
                self._senders.note_save()
                self._bookkeeper.note_lease()
                self._hand.watched[key] = recorded.since
                # SQLite gives out the number of a row that a savepoint took back again.
                self._hand.to_read.pop(key, None)

    def committed(self, recorded: Sequence[Recorded], using: str, *, fresh: bool) -> None:
        """Take committed deliveries: from memory when fresh, else they are read back."""
        hand = self._hand
        with hand.lock:
            self._bookkeeper.sweeper.meet(using)
            self._senders.note_save()
            mine = [item for item in recorded if self._is_mine(item, using)]
            if not fresh:
                hand.note_committed({(using, item.delivery.pk): item.since for item in mine})
            self._started()
            if hand.to_read:
                self._senders.have_one()
            # In a long burst it knows since the first when to read them.
            if hand.to_look or len(hand.to_read) == len(mine) or hand.next_read <= monotonic():
                hand.work.notify()
        for item in mine if fresh else ():
            self._submit_or_return(Job(item.delivery, using, item.since))

    def _is_mine(self, item: Recorded, using: str) -> bool:
        """Say whether a committed delivery is to be sent from here; the lock is held."""
        hand, key = self._hand, (using, item.delivery.pk)
        if item.delivery.state == State.WAITING:
            hand.note_waiting(using, item.delivery.lane)
        elif not item.leased:
            self._bookkeeper.sweeper.ask()
        # Only whoever takes it off the watched ones may send it; and another's row by this number,
        # which SQLite gives out again, is left to its own hint.
        if hand.watched.get(key) != item.since:
            if item.leased:  # or its transaction outlasted the lease, and it is for anybody by now
                self._bookkeeper.sweeper.ask()
            return False
        del hand.watched[key]
        return True

    def _submit_or_return(self, job: Job) -> None:
        if not self.submit(job):
            with self._hand.lock:  # the bookkeeper finds no room either, and hands it back
                self._hand.to_read[job.using, job.delivery.pk] = job.since
                self._hand.work.notify()

    def submit(self, job: Job) -> bool:
        """Give a leased job to the senders; False when there is no room."""
        with self._hand.lock:
            hand = self._hand
            if hand.stopping or hand.health.turns_away(job) or not hand.queue.put(job):
                return False
            self._bookkeeper.note_lease()
            self._senders.staff()
            if not self._senders.alive:  # no thread to be had: then it is for another process
                self._hand.queue.drop(job)
            return bool(self._senders.alive)

    # Waiting and ending

    def drain(self, timeout: float | None) -> None:
        """Wait until nothing is in flight and nothing is due. Raises ``TimeoutError``.

        Nor is a repair under way, or asked for, that nobody else works on.
        """
        hand, sweeper = self._hand, self._bookkeeper.sweeper
        repairer = self._bookkeeper.repairer
        until = None if timeout is None else monotonic() + timeout
        with hand.lock:
            self._started()
            if sweeper.found_nothing:  # else an earlier question is still open
                sweeper.ask()
            while not (hand.is_empty and sweeper.found_nothing and repairer.found_nothing):
                left = None if until is None else until - monotonic()
                if (left is not None and left <= 0) or hand.stopping:
                    after = "At the end" if timeout is None else f"After {timeout:.3g} s"
                    raise TimeoutError(f"{after} there is still {self._report()}.")
                hand.calm.wait(min(0.05, left) if left is not None else 0.05)
            if hand.errors:
                raise hand.errors.pop(0)

    def finish(self, timeout: float) -> list[BaseException]:
        """Send what is in hand for up to so many seconds, then stop; return what threads raised."""
        until = monotonic() + timeout
        with self._hand.lock:
            if self._thread is None or self._hand.stopping:
                return []
            self._hand.finishing = True
            while not self._hand.is_empty and (left := until - monotonic()) > 0:
                self._hand.calm.wait(min(0.05, left))
        return self.stop(max(1.0, until - monotonic()))

    def stop(self, timeout: float) -> list[BaseException]:
        """End all threads: record what is known, hand back what was not begun.

        Returns what threads raised. One that hangs in a call is left to its deadline.
        """
        until = monotonic() + timeout
        with self._hand.lock:
            self._hand.stopping = True
            threads = list(self._senders.alive)
            self._hand.ready.notify_all()
            self._hand.work.notify_all()  # what was not begun is handed back meanwhile
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))
        with self._hand.lock:  # only now: until here there was something to record
            self._hand.closing = True
            self._hand.work.notify_all()
        if self._thread is not None:
            self._thread.join(max(0.5, until - monotonic()))
        return self._hand.errors

    def _started(self) -> bool:
        if self._thread is None and not self._hand.stopping:
            thread = threading.Thread(
                target=self._bookkeeper.run, name="signal_dispatch-bookkeeper", daemon=True
            )
            self._thread = thread if start_thread(thread) else None
        return self._thread is not None

    def _report(self) -> str:
        hand, repairing = self._hand, not self._bookkeeper.repairer.found_nothing
        if hand.is_empty and not repairing and (error := self._bookkeeper.met):
            return f"an outbox that can't be looked into ({type(error).__name__}: {error})"
        return (
            f"{hand.queue.in_flight} in flight, {len(hand.queue)} ready, "
            f"{hand.unrecorded} unrecorded, {len(hand.to_read)} to read, "
            f"{len(hand.to_look | hand.blocked)} lanes to look at"
            f"{', a repair to be made' if repairing else ''}"
        )
