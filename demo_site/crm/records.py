"""What the CRM holds, and how it behaves at the moment."""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """How the API takes calls."""

    HEALTHY = "healthy"
    # Answers as it should, after a while.
    SLOW = "slow"
    # Answers with an error, and stores nothing.
    FAIL = "fail"
    # Refuses connections.
    DOWN = "down"


@dataclass(frozen=True)
class Behaviour:
    """A mode with its measure: the ``seconds`` of SLOW, the ``status`` that FAIL answers.

    ``retry_after``: the seconds that FAIL asks callers to wait, 0 if it asks for nothing.
    """

    mode: Mode = Mode.HEALTHY
    seconds: float = 3
    status: int = 503
    retry_after: int = 0

    @classmethod
    def from_json(cls, value: Any) -> "Behaviour":
        """Read ``{"mode": "slow", "seconds": 3}``. Raises ``ValueError`` for anything unsound."""
        try:
            behaviour = cls(
                mode=Mode(value["mode"]),
                seconds=float(value.get("seconds", cls.seconds)),
                status=int(value.get("status", cls.status)),
                retry_after=int(value.get("retry_after", cls.retry_after)),
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError('Send such as {"mode": "slow", "seconds": 3}.') from error
        times = (behaviour.seconds, behaviour.retry_after)
        if not all(0 <= time <= 60 for time in times) or not 400 <= behaviour.status <= 599:
            raise ValueError("'seconds' and 'retry_after' must be 0 to 60, 'status' 400 to 599.")
        return behaviour


class Records:
    """The CRM's orders by number, and the calls it saw last; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: dict[str, dict[str, Any]] = {}
        self._calls: deque[dict[str, Any]] = deque(maxlen=8)

    def store(self, number: str, fields: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Store an order under its number; return it with its id, and whether it is new."""
        with self._lock:
            known = self._orders.get(number)
            new_id = known["id"] if known else f"c-{len(self._orders) + 1}"
            self._orders[number] = {**fields, "id": new_id}
            return self._orders[number], known is None

    def note(self, method: str, path: str, status: int) -> None:
        """Remember a call and what was answered."""
        with self._lock:
            self._calls.append({"method": method, "path": path, "status": status})

    def snapshot(self) -> dict[str, Any]:
        """Return all orders and the last calls, the latest first."""
        with self._lock:
            return {"orders": dict(self._orders), "calls": list(reversed(self._calls))}
