"""How many calls an endpoint gets in a time: ``RATE``, shared by the threads of this process.

With ``SIGNAL_DISPATCH_RATE_STORAGE`` processes and hosts share it, through the library limits.
"""

import threading
from collections import deque
from time import monotonic

from signal_dispatch.entries import Endpoint


class Rates:
    """Admit calls, each endpoint's in a window that moves with the time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._admitted: dict[str, deque[float]] = {}

    def seconds_to_wait(self, endpoint: Endpoint) -> float:
        """Admit a call and return 0; else say after how many seconds to ask again."""
        if endpoint.rate is None:
            return 0.0
        return self._admit(endpoint.alias, *endpoint.rate)

    def _admit(self, alias: str, count: int, seconds: float) -> float:
        with self._lock:
            now = monotonic()
            admitted = self._admitted.setdefault(alias, deque())
            while admitted and admitted[0] <= now - seconds:
                admitted.popleft()
            if len(admitted) < count:
                admitted.append(now)
                return 0.0
            return admitted[0] + seconds - now


rates = Rates()
