"""Let others see that a worker process lives, and what it serves."""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

from django.db import Error

from signal_dispatch import claims
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import WorkerProcess
from signal_dispatch.scopes import Scope

logger = logging.getLogger("signal_dispatch")

#: Seconds between two beats.
BEAT_SECONDS = 10.0
#: Seconds without a beat after which a process counts as dead.
DEAD_SECONDS = 60.0
#: Seconds without a beat after which whoever beats takes the row away.
FORGET_SECONDS = 3600.0


class Heartbeat:
    """The word of one process that it lives, in each outbox that it serves.

    ``beat()`` belongs to one thread; ``stop()`` is called when that one has ended.
    """

    def __init__(self, scope: Callable[[], Scope], concurrency: int) -> None:
        self._scope = scope
        self._concurrency = concurrency
        self._began = monotonic()
        self._last: dict[str, float] = {}
        self._beaten: set[str] = set()

    def beat(self, using: str) -> None:
        """Say that this process looked into the outbox; writes no more than every few seconds.

        A database that refuses is logged and tolerated: the deliveries are what counts.
        """
        now = monotonic()
        if using in self._last and now - self._last[using] < BEAT_SECONDS:
            return
        self._last[using] = now
        try:
            self._write(using)
        except Error as error:
            logger.warning(
                "The heartbeat can't be written to the database %r (%s). After a minute without "
                "one dispatch_status calls this worker dead.",
                using,
                error,
                extra={"action": "heartbeat_failed"},
            )
        # After an error too: the row may stand there, and the word of it be lost.
        self._beaten.add(using)

    def stop(self) -> None:
        """Take the rows of this process away: it ends as it was told to."""
        for using in self._beaten:
            try:
                WorkerProcess.objects.using(using).filter(name=claims.holder()).delete()
            except Error as error:
                logger.warning(
                    "The heartbeat can't be taken from the database %r (%s). dispatch_status shows "
                    "this worker as dead until another one removes it.",
                    using,
                    error,
                    extra={"action": "heartbeat_failed"},
                )

    def _write(self, using: str) -> None:
        rows, name, scope = WorkerProcess.objects.using(using), claims.holder(), self._scope()
        values: dict[str, Any] = {"seen_at": DatabaseNow(), "endpoints": scope.names}
        if not rows.filter(name=name).update(**values):
            host, pid, _word = name.rsplit(":", 2)
            rows.create(
                name=name,
                host=host,
                pid=int(pid),
                environment=scope.environment,
                concurrency=self._concurrency,
                started_at=DatabaseNow(self._began - monotonic()),
                **values,
            )
        rows.filter(seen_at__lt=DatabaseNow(-FORGET_SECONDS)).delete()
