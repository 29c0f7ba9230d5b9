"""Threads that send: one bookkeeper, and senders that come and go with the work."""

import contextvars
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from django.db import Error, connections

from signal_dispatch import claims
from signal_dispatch.bookkeeping import Bookkeeper
from signal_dispatch.claims import Scope
from signal_dispatch.conf import settings
from signal_dispatch.delivering import count_internal, deliver, tell
from signal_dispatch.endpoints import endpoints
from signal_dispatch.exceptions import EndpointNotMocked, LeaseLost
from signal_dispatch.hand import MAX_UNRECORDED, Hand, Settled
from signal_dispatch.models import State
from signal_dispatch.queueing import Job, Recorded
from signal_dispatch.sender import SessionCache
from signal_dispatch.settling import Settlement
from signal_dispatch.sweeping import MAX_SLEEP_SECONDS

logger = logging.getLogger("signal_dispatch")

#: Seconds that a lease must outlast the longest attempt by.
MARGIN_SECONDS = 2.0
#: Seconds before a delivery is tried again that the database kept from being tried.
INTERNAL_DELAY_SECONDS = 30.0


class Worker:
    """The threads of one process, and what they have in hand.

    ``max_senders`` threads send; ``queue_size`` deliveries of ``queue_bytes`` in all are held in
    memory; a sender ends after ``idle_seconds`` without work. While anything is scheduled the
    table is looked at every ``sweep_seconds`` at least, else every ``max_sleep_seconds``.

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
        keep_errors: bool = False,
    ) -> None:
        #: Whether what hooks raise is kept for whoever drains or stops: so under test.
        self._keep_errors = keep_errors
        self._hand = Hand(queue_size, queue_bytes)
        self._max_senders = max_senders
        self._idle_seconds = idle_seconds
        self._senders: set[threading.Thread] = set()
        self._idle = 0
        self._number = 0
        self._thread: threading.Thread | None = None
        self._bookkeeper = Bookkeeper(
            self._hand,
            scope,
            self.submit,
            batch=4 * max_senders,
            sweep_seconds=sweep_seconds,
            max_sleep_seconds=max_sleep_seconds,
            using=using,
        )

    # Told by those who save

    def start(self) -> bool:
        """Start the bookkeeper; False where no thread can be had any more."""
        with self._hand.lock:
            return self._started()

    @property
    def has_room(self) -> bool:
        """Whether a new delivery can be taken, rather than left in the table."""
        with self._hand.lock:
            return not (self._hand.stopping or self._hand.is_full) and self._started()

    def remember(self, recorded: Recorded) -> None:
        """Note a lease before its transaction commits, should the hint get lost."""
        if recorded.leased:
            key = recorded.using, recorded.delivery.pk
            with self._hand.lock:
                self._hand.watched[key] = recorded.since
                # SQLite gives out the number of a row that a savepoint took back again.
                self._hand.to_read.pop(key, None)

    def committed(self, recorded: Sequence[Recorded], using: str, *, fresh: bool) -> None:
        """Take committed deliveries: from memory when fresh, else they are read back."""
        hand = self._hand
        with hand.lock:
            mine = [item for item in recorded if self._is_mine(item, using)]
            if not fresh:
                hand.to_read |= {(using, item.delivery.pk): item.since for item in mine}
            self._started()
            if hand.to_read and not (self._senders or hand.stopping):
                self._start_sender()  # now: Python 3.12 starts no thread once the script has ended
            if hand.to_look or hand.to_read:
                hand.work.notify()
        for item in mine if fresh else ():
            self._submit_or_return(Job(item.delivery, using, item.since))

    def _is_mine(self, item: Recorded, using: str) -> bool:
        """Say whether a committed delivery is to be sent from here; the lock is held."""
        hand, key = self._hand, (using, item.delivery.pk)
        if item.delivery.state == State.WAITING:
            hand.to_look.add((using, item.delivery.lane))
        elif not item.leased:
            self._bookkeeper.sweeper.ask()
        # Only whoever takes it off the watched ones may send it; and another's row by this number,
        # which SQLite gives out again, is left to its own hint.
        if hand.watched.get(key) != item.since:
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
            if self._hand.stopping or not self._hand.queue.put(job):
                return False
            if self._idle:
                self._hand.ready.notify()
            if self._idle < len(self._hand.queue) and len(self._senders) < self._max_senders:
                self._start_sender()
            if not self._senders:  # no thread to be had: then it is for another process
                self._hand.queue.drop(job)
            return bool(self._senders)

    # Waiting and ending

    def drain(self, timeout: float | None) -> None:
        """Wait until nothing is in flight and nothing is due. Raises ``TimeoutError``."""
        hand, sweeper = self._hand, self._bookkeeper.sweeper
        until = None if timeout is None else monotonic() + timeout
        with hand.lock:
            self._started()
            if sweeper.found_nothing:  # else an earlier question is still open
                sweeper.ask()
            while not (hand.is_empty and sweeper.found_nothing):
                left = None if until is None else until - monotonic()
                if (left is not None and left <= 0) or hand.stopping:
                    raise TimeoutError(f"After {timeout} s there is still {self._report()}.")
                hand.calm.wait(min(0.05, left) if left is not None else 0.05)
            if hand.errors:
                raise hand.errors.pop(0)

    def finish(self, timeout: float) -> None:
        """Send what is in hand for up to so many seconds, then stop."""
        until = monotonic() + timeout
        with self._hand.lock:
            if self._thread is None or self._hand.stopping:
                return
            self._hand.finishing = True
            while not self._hand.is_empty and (left := until - monotonic()) > 0:
                self._hand.calm.wait(min(0.05, left))
        self.stop(max(1.0, until - monotonic()))

    def stop(self, timeout: float) -> list[BaseException]:
        """End all threads: record what is known, hand back what was not begun.

        Returns what threads raised. One that hangs in a call is left to its deadline.
        """
        until = monotonic() + timeout
        with self._hand.lock:
            self._hand.stopping = True
            threads = list(self._senders)
            self._hand.ready.notify_all()
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))
        with self._hand.lock:  # only now: until here there was something to record
            self._hand.closing = True
            self._hand.work.notify_all()
        if self._thread is not None:
            self._thread.join(max(0.5, until - monotonic()))
        return self._hand.errors

    # Threads. The lock is held in the next three.

    def _started(self) -> bool:
        if self._thread is None and not self._hand.stopping:
            thread = threading.Thread(
                target=self._bookkeeper.run, name="signal_dispatch-bookkeeper", daemon=True
            )
            self._thread = thread if _start(thread) else None
        return self._thread is not None

    def _start_sender(self) -> None:
        self._number += 1
        thread = threading.Thread(
            target=self._send_all, name=f"signal_dispatch-sender-{self._number}", daemon=True
        )
        if _start(thread):
            self._senders.add(thread)

    def _report(self) -> str:
        hand = self._hand
        return (
            f"{hand.queue.in_flight} in flight, {len(hand.queue)} ready, "
            f"{hand.unrecorded} unrecorded, {len(hand.to_read) + len(hand.to_look)} to read"
        )

    def _send_all(self) -> None:
        sessions = SessionCache()
        try:
            while (job := self._next_job(wait=False) or self._idle_until_job()) is not None:
                self._send(job, sessions)
        finally:
            sessions.close()
            connections.close_all()
            with self._hand.lock:
                self._senders.discard(threading.current_thread())

    def _idle_until_job(self) -> Job | None:
        connections.close_all()
        return self._next_job(wait=True)

    def _next_job(self, *, wait: bool) -> Job | None:
        hand, until = self._hand, monotonic() + self._idle_seconds
        with hand.lock:
            while not hand.stopping:
                job = hand.queue.take() if hand.unrecorded < MAX_UNRECORDED else None
                if job is not None and _may_begin(job):
                    return job
                if job is not None:
                    hand.queue.done(job)
                    hand.stale.append(job)
                    hand.work.notify()
                    continue
                left = until - monotonic()
                if not wait or (left <= 0 and not len(hand.queue)):
                    break
                if left <= 0:  # not idle: it may not go on before answers are recorded
                    until, left = monotonic() + self._idle_seconds, self._idle_seconds
                self._idle += 1
                hand.ready.wait(left)
                self._idle -= 1
            if wait:
                self._senders.discard(threading.current_thread())
            return None

    def _send(self, job: Job, sessions: SessionCache) -> None:
        hand = self._hand
        settlement = self._try(job, sessions)
        if settlement is not None and settlement.recorded:
            tell([settlement], job.using)
        with hand.lock:
            hand.queue.done(job)
            if settlement is not None:
                hand.settled.append(Settled(job, settlement))
            if len(hand.queue):
                hand.ready.notify()
            hand.work.notify()

    def _try(self, job: Job, sessions: SessionCache) -> Settlement | None:
        try:
            for connection in connections.all(initialized_only=True):
                connection.close_if_unusable_or_obsolete()
            settlement = deliver(job.delivery, job.using, sessions, sender_name=claims.holder())
            self._keep(settlement.hook_error)
            return settlement
        except LeaseLost as lost:
            logger.info("%s", lost, extra={"action": "lease_lost"})
            return None
        except EndpointNotMocked as error:
            self._keep(error)
            return _internal(job, error)
        except BaseException as error:  # a hook's sys.exit() must not end the sender either
            self._keep(error)
            logger.exception("Delivery %s could not be tried.", job.delivery.pk)
            return _internal(job, error)

    def _keep(self, error: BaseException | None) -> None:
        if error is not None and self._keep_errors:
            with self._hand.lock:
                self._hand.errors.append(error)


def _internal(job: Job, error: BaseException) -> Settlement:
    if not isinstance(error, Error | EndpointNotMocked):
        return count_internal(job.delivery, error, sender_name=claims.holder())
    # No call was made, and none of the delivery's attempts is used up.
    reason = f"{type(error).__name__}: {error}"
    return Settlement(
        job.delivery,
        State.PENDING,
        delay=INTERNAL_DELAY_SECONDS,
        error_class="internal",
        reason=reason,
    )


def _may_begin(job: Job) -> bool:
    """Whether the lease outlasts an attempt that begins now."""
    endpoint = endpoints.find(job.delivery.endpoint)
    longest = endpoint.deadline if endpoint else 0.0
    return job.age < max(1.0, settings.lease_seconds - longest - MARGIN_SECONDS)


def _start(thread: threading.Thread) -> bool:
    try:
        # An empty context: what the starting request left in its own is not the thread's.
        contextvars.Context().run(thread.start)
    except RuntimeError:  # the interpreter is ending, or the system has no more threads
        return False
    return True
