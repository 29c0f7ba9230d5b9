"""Share rates between processes and hosts, in a storage of the library limits such as Redis."""

import logging
import threading
import time
from typing import Any

from limits import RateLimitItemPerSecond
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter

from signal_dispatch.conf import settings
from signal_dispatch.exceptions import InvalidSettings

logger = logging.getLogger("signal_dispatch")

#: Seconds without calls after the storage could not be asked: a rate is not exceeded in silence.
OUTAGE_SECONDS = 1.0
#: The shortest wait; a clock that ran ahead must not make it a loop.
_SHORTEST_SECONDS = 0.01
#: Seconds that Redis gets for an answer.
_TIMEOUT_SECONDS = 2.0


class SharedRates:
    """Admit calls by what all processes with this storage were admitted."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._limiter: MovingWindowRateLimiter | None = None
        self._lock = threading.Lock()
        self._out_of_reach = False

    def seconds_to_wait(self, alias: str, count: int, seconds: float) -> float:
        """Admit a call and return 0; else return after how many seconds to ask again."""
        # The environment is a part of the key: staging does not use up what production may.
        item = RateLimitItemPerSecond(count, int(seconds), namespace="signal_dispatch")
        key = (settings.environment, alias)
        try:
            limiter = self._connected()
            if limiter.hit(item, *key):
                self._note_reached()
                return 0.0
            stats = limiter.get_window_stats(item, *key)
        except (StorageError, InvalidSettings) as error:
            self._note_out_of_reach(error)
            return OUTAGE_SECONDS
        self._note_reached()
        return max(stats.reset_time - time.time(), _SHORTEST_SECONDS)

    def _connected(self) -> MovingWindowRateLimiter:
        with self._lock:
            if self._limiter is None:
                self._limiter = limiter_for(self._uri)
            return self._limiter

    def _note_reached(self) -> None:
        if self._out_of_reach:
            self._out_of_reach = False
            logger.info(
                "The storage of rates can be reached again.", extra={"action": "rates_available"}
            )

    def _note_out_of_reach(self, error: Exception) -> None:
        if self._out_of_reach:
            return
        self._out_of_reach = True
        cause = getattr(error, "storage_error", error)
        # Only its kind: the words may hold the storage's address, with its password.
        logger.warning(
            "The storage of rates can't be reached (%s). Endpoints with a RATE get no call until "
            "it can.",
            type(cause).__name__,
            extra={"action": "rates_unavailable"},
        )


def limiter_for(uri: str) -> MovingWindowRateLimiter:
    """Return what counts in a storage; no connection is made yet. Raises ``InvalidSettings``."""
    options: dict[str, Any] = {"wrap_exceptions": True}
    if uri.startswith(("redis", "valkey")):
        options |= {"socket_timeout": _TIMEOUT_SECONDS, "socket_connect_timeout": _TIMEOUT_SECONDS}
    try:
        return MovingWindowRateLimiter(storage_from_string(uri, **options))
    except (ConfigurationError, NotImplementedError, ValueError) as error:
        # The library's own words would show the address, with its password.
        raise InvalidSettings(
            "SIGNAL_DISPATCH_RATE_STORAGE names no storage of the library limits that counts in a "
            "moving window, or one whose own library is not installed."
        ) from error
