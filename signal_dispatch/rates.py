"""How many calls an endpoint gets in a time: ``RATE``, shared by the threads of this process.

With ``SIGNAL_DISPATCH_RATE_STORAGE`` it is shared by processes and hosts as well.
"""

import os
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from django.core.signals import setting_changed

from signal_dispatch.conf import settings
from signal_dispatch.endpoints import endpoints

if TYPE_CHECKING:
    from signal_dispatch.shared_rates import SharedRates


class Rates:
    """Admit calls, so many of each endpoint in a window that moves with the time."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        #: When the calls of the last window were admitted, by endpoint.
        self._admitted: dict[str, deque[float]] = {}
        self._shared: SharedRates | None = None

    def seconds_to_wait(self, alias: str) -> float:
        """Admit a call and return 0; else return after how many seconds to ask again.

        Of an endpoint that its RESOLVER did not name yet, the rate of its entry counts.
        """
        endpoint = endpoints.find(alias)
        if endpoint is None or endpoint.rate is None:
            return 0.0
        if self._pid != os.getpid():  # a lock may be held by a thread that the fork left behind
            self.forget()
        if not settings.rate_storage:
            return self._admit(alias, *endpoint.rate)
        with self._lock:
            if self._shared is None:
                from signal_dispatch.shared_rates import SharedRates

                self._shared = SharedRates(settings.rate_storage)
        # Without the lock: another host's answer may take its time.
        return self._shared.seconds_to_wait(alias, *endpoint.rate)

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

    def forget(self, *, setting: str = "", **kwargs: Any) -> None:
        """Begin anew, if it is our settings that changed."""
        if setting and not setting.startswith("SIGNAL_DISPATCH_"):
            return
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._admitted, self._shared = {}, None


rates = Rates()
setting_changed.connect(rates.forget, dispatch_uid="signal_dispatch.rates")
