"""Threads that send: they come with the work, take it as it may go, and end when idle."""

import logging
import threading
from collections.abc import Callable
from math import inf
from time import monotonic

from django.db import connections

from signal_dispatch import claims
from signal_dispatch.calling import send_limit_of
from signal_dispatch.concluding import broken, tell
from signal_dispatch.databases import refresh_connections
from signal_dispatch.delivering import deliver
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import EndpointNotMocked, LeaseLost
from signal_dispatch.hand import MAX_UNRECORDED, Hand, Settled
from signal_dispatch.jobs import Job
from signal_dispatch.rates import rates
from signal_dispatch.sessions import SessionCache
from signal_dispatch.settling import Settlement
from signal_dispatch.starting import start_thread

logger = logging.getLogger("signal_dispatch")

#: Seconds that an endpoint gets no call after its rate could not be told.
RATE_FAULT_SECONDS = 1.0
#: So much later than it could go a job may be looked for: else two would watch for it.
_SLACK_SECONDS = 0.001


class SenderThreads:
    """The senders of one process: at most ``most``, each ends after ``idle_seconds`` without work.

    ``note_settled`` is called when a job is done. ``keep_errors``: what hooks raise is kept in the
    hand, for whoever drains or stops.
    """

    def __init__(
        self,
        hand: Hand,
        note_settled: Callable[[], None],
        *,
        most: int,
        idle_seconds: float,
        keep_errors: bool,
    ) -> None:
        self._hand = hand
        self._note_settled = note_settled
        self._most = most
        self._idle_seconds = idle_seconds
        self._keep_errors = keep_errors
        self.alive: set[threading.Thread] = set()
        self._idle = 0
        #: When one of the idle ones looks again by itself.
        self._looks_at = inf
        #: Whether one was called, or started, and has not looked yet.
        self._called = False
        self._number = 0

    # For any thread that holds the lock

    def note_save(self) -> None:
        """Note that the running thread saved something just now."""
        if threading.current_thread() not in self.alive:  # to themselves they give no way
            self._hand.note_save()

    def have_one(self) -> None:
        """Start a sender if there is none: Python 3.12 starts none once the script has ended."""
        if not (self.alive or self._hand.stopping):
            self._start_sender()

    def staff(self) -> None:
        """See to it that somebody takes what is ready as soon as it may go.

        Whoever makes a job ready calls this, and whoever takes one, for those that are left. So
        one at a time is called; and while the senders give way, one that waits for the end of it
        is enough.
        """
        hand = self._hand
        if self._called or not len(hand.queue):
            return
        left = hand.gives_way if hand.queue.may_go else hand.seconds_slowed or inf
        if self.alive and left and self._looks_at <= monotonic() + left + _SLACK_SECONDS:
            return
        if self._idle:
            self._called = True
            hand.ready.notify()
        elif len(self.alive) < self._most:
            self._start_sender()

    def _start_sender(self) -> None:
        self._number += 1
        thread = threading.Thread(
            target=self._send_all, name=f"signal_dispatch-sender-{self._number}", daemon=True
        )
        if start_thread(thread):
            self._called = True
            self.alive.add(thread)

    # For the senders

    def _send_all(self) -> None:
        sessions = SessionCache()
        try:
            while (job := self._next_job(wait=False) or self._idle_until_job()) is not None:
                if self._is_admitted(job):
                    self._send(job, sessions)
        finally:
            sessions.close()
            connections.close_all()
            with self._hand.lock:
                self.alive.discard(threading.current_thread())

    def _idle_until_job(self) -> Job | None:
        with self._hand.lock:
            held_back = len(self._hand.queue)
        if not held_back:  # else there is work again in a moment
            connections.close_all()
        return self._next_job(wait=True)

    def _next_job(self, *, wait: bool) -> Job | None:
        hand, until = self._hand, monotonic() + self._idle_seconds
        with hand.lock:
            self._called = False
            while not hand.stopping:
                giving_way = hand.gives_way  # once: it may end between a look and the wait
                job = None if giving_way else self._take()
                if job is not None:
                    self.staff()
                    return job
                left = until - monotonic()
                if not wait or (left <= 0 and (self._idle or not len(hand.queue))):
                    break
                if left <= 0:  # not idle: what is ready may not go yet, and nobody else waits
                    until, left = monotonic() + self._idle_seconds, self._idle_seconds
                self._wait(left, giving_way or hand.seconds_slowed)
            if wait:
                self.alive.discard(threading.current_thread())
                hand.ready.notify()  # whoever waits on may have left the watch to this one
            return None

    def _take(self) -> Job | None:
        """Return a job that may begin now; whose lease is too old is renewed first."""
        hand = self._hand
        while hand.unrecorded < MAX_UNRECORDED:
            job = hand.queue.take()
            if job is None or job.may_begin:
                return job
            hand.queue.done(job)
            hand.stale.append(job)
            hand.work.notify()
        return None

    def _is_admitted(self, job: Job) -> bool:
        """Say whether the endpoint's rate has room for the call; else the job waits for it."""
        if not self._hand.health.watching:
            return True
        alias = job.delivery.endpoint
        try:
            seconds = rates.seconds_to_wait(alias)
        except Exception:  # the job would be lost with this thread
            seconds = RATE_FAULT_SECONDS
            logger.exception(
                "The rate of the endpoint %r can't be told. It gets no call for %g s.",
                alias,
                seconds,
                extra={"action": "rate_failed", "endpoint": alias},
            )
        if not seconds:
            return True
        with self._hand.lock:
            self._hand.health.slow(alias, seconds)
            self._hand.queue.put_back(job)
        return False

    def _wait(self, seconds: float, until_look: float) -> None:
        """Wait for a notice; whoever would look first of all looks after ``until_look``, too."""
        looks_at = monotonic() + until_look if until_look > 0 else inf
        watches = looks_at < self._looks_at
        if watches:
            self._looks_at = looks_at
        self._idle += 1
        self._hand.ready.wait(min(seconds, until_look) if watches else seconds)
        self._idle -= 1
        self._called = False
        if self._looks_at == looks_at:
            self._looks_at = inf

    def _send(self, job: Job, sessions: SessionCache) -> None:
        hand = self._hand
        settlement = self._try(job, sessions)
        if settlement is not None and settlement.recorded:
            tell([settlement], job.using)
        with hand.lock:
            hand.health.note(job, settlement.attempt if settlement else None)
            hand.queue.done(job)
            if settlement is not None and settlement.attempt is not None:
                hand.took = monotonic() - job.begun_at
            if settlement is not None:
                hand.settled.append(Settled(job, settlement))
            self._note_settled()

    def _try(self, job: Job, sessions: SessionCache) -> Settlement | None:
        try:
            refresh_connections()
            settlement = deliver(
                job.delivery,
                job.using,
                sessions,
                sender_name=claims.holder(),
                resolve=lambda alias: self._resolve(job, alias),
            )
            self._keep(settlement.hook_error)
            return settlement
        except LeaseLost as lost:
            logger.info("%s", lost, extra=job.delivery.log_extra("lease_lost"))
            return None
        except EndpointNotMocked as error:
            self._keep(error)
            return broken(job.delivery, job.using, error, sender_name=claims.holder())
        except BaseException as error:  # a hook's sys.exit() must not end the sender either
            self._keep(error)
            extra = job.delivery.log_extra("attempt_broken")
            logger.exception("Delivery %s could not be tried.", job.delivery.pk, extra=extra)
            return broken(job.delivery, job.using, error, sender_name=claims.holder())
        finally:
            job.renewed_until = inf

    def _resolve(self, job: Job, alias: str) -> Endpoint:
        """Return the endpoint to call; raises ``LeaseLost`` where that took too much of a lease."""
        try:
            endpoint = endpoints.resolve(alias)
        finally:
            if job.asks:
                with self._hand.lock:
                    job.asks = False
                    self.staff()  # others may have waited for the same answer
        if not job.may_begin:
            raise LeaseLost(f"Resolving {alias!r} took too long: delivery {job.delivery.pk} waits.")
        limit = send_limit_of(job.delivery)
        job.renewed_until = inf if limit is None else monotonic() + limit
        return endpoint

    def _keep(self, error: BaseException | None) -> None:
        if error is not None and self._keep_errors:
            with self._hand.lock:
                self._hand.errors.append(error)
