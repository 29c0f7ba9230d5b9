"""Hand messages to the engine that other processes work for; one that refuses rests a while."""

import logging
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic

from signal_dispatch.outboxes import pause_after

logger = logging.getLogger("signal_dispatch")

#: Seconds without a message after which the connection is closed.
KEEP_SECONDS = 10.0
#: The longest pause, in seconds, after the engine refused.
MAX_PAUSE_SECONDS = 10.0


class Engine:
    """What takes messages. Belongs to one thread, which alone waits for it.

    ``publish(using, ids)`` hands over one message, and may raise; without ids it tells a worker
    to look what is due there. ``disconnect`` closes the connection, if there is one.
    """

    def __init__(
        self, publish: Callable[[str, Sequence[int]], None], disconnect: Callable[[], None]
    ) -> None:
        self._publish = publish
        self._disconnect = disconnect
        self._failures = 0
        #: When it is tried again, by ``monotonic()``.
        self.open_at = -inf
        #: When its connection has not been used for long enough.
        self.idle_at = inf

    @property
    def rests(self) -> bool:
        """Whether it refused a moment ago."""
        return monotonic() < self.open_at

    def tell(self, using: str, ids: Sequence[int]) -> bool:
        """Hand over a message; False where the engine does not take it. The table keeps it all."""
        if self.rests:
            return False
        self.idle_at = monotonic() + KEEP_SECONDS
        try:
            self._publish(using, ids)
        except Exception as error:  # noqa: BLE001 - each engine has its own
            self._rest(error)
            return False
        if self._failures:
            logger.info("Messages are taken again.", extra={"action": "engine_available"})
        self._failures = 0
        return True

    def close(self) -> None:
        """Close the connection until the next message."""
        self.idle_at = inf
        self._disconnect()

    def _rest(self, error: Exception) -> None:
        self._failures += 1
        pause = pause_after(self._failures, MAX_PAUSE_SECONDS)
        self.open_at = monotonic() + pause
        logger.warning(
            "No message can be published (%s: %s); trying again in %.1f s. "
            "What is due stays in the outbox.",
            type(error).__name__,
            error,
            pause,
            extra={"action": "engine_unavailable"},
        )
