"""The loop of a thread that keeps in step with the outboxes: wait for work, do it, and live on."""

from abc import ABC, abstractmethod
from math import inf
from threading import Condition
from time import monotonic

from django.db import connections

from signal_dispatch.databases import refresh_connections
from signal_dispatch.outboxes import pause_after, warn_of_outbox

#: Seconds without work after which the databases' connections are closed.
KEEP_SECONDS = 1.0
#: The longest pause, in seconds, after a database refused.
MAX_PAUSE_SECONDS = 10.0


class Loop(ABC):
    """Base of what works in one thread of ours, whenever there is something to do.

    ``work`` is notified when there is something new to do, or when it is to end. At rest no
    connection is kept.
    """

    def __init__(self, work: Condition) -> None:
        self._work = work
        self._worked_at = -inf
        #: What the last step met, until one is done without an error.
        self.met: Exception | None = None

    @abstractmethod
    def _is_ending(self) -> bool:
        """Say whether it is to end; called with the lock."""

    @abstractmethod
    def _next_at(self) -> float:
        """Return when there is something to do, by ``monotonic()``; called with the lock."""

    @abstractmethod
    def _step(self) -> None:
        """Do what is due."""

    @abstractmethod
    def _end(self) -> None:
        """Do what is left to do at the end."""

    def run(self) -> None:
        """Work until it is to end. An error ends nothing: nobody else would do this work."""
        failures = 0
        try:
            while self._wait_for_work():
                try:
                    refresh_connections()
                    self._step()
                    self._worked_at, failures, self.met = monotonic(), 0, None
                except Exception as error:  # noqa: BLE001 - it must live on
                    failures, self.met = failures + 1, error
                    self._back_off(error, failures)
            self._end()
        finally:
            connections.close_all()

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; False when it is to end."""
        while True:
            connected = _is_connected()
            with self._work:
                if self._is_ending():
                    return False
                next_at, now = self._next_at(), monotonic()  # in this order: "now" is due
                if next_at <= now:
                    return True
                keeps = self._worked_at + KEEP_SECONDS - now if connected else inf
                if keeps > 0:
                    self._work.wait(min(next_at - now, keeps))
            if keeps <= 0:  # without the lock: it may take its time
                connections.close_all()

    def _back_off(self, error: Exception, failures: int) -> None:
        connections.close_all()
        pause = pause_after(failures, MAX_PAUSE_SECONDS)
        warn_of_outbox(error, pause)
        self._rest(pause)

    def _rest(self, seconds: float) -> None:
        """Do nothing for a while."""
        with self._work:
            self._work.wait_for(self._is_ending, seconds)


def _is_connected() -> bool:
    return any(c.connection is not None for c in connections.all(initialized_only=True))
