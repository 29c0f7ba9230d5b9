"""Count what a worker finished, and what it leaves in the outboxes when it ends."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from threading import Lock
from typing import Any

from django.db import Error

from signal_dispatch import bars, claims
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.databases import is_refused_by_test
from signal_dispatch.models import Delivery, Repair, State
from signal_dispatch.scopes import Scope
from signal_dispatch.signals import delivery_finished
from signal_dispatch.status import unfinished_groups

_LEFT = {
    "due": "due",
    "paused": "due at a paused endpoint",
    "open": "due where a breaker is open",
    "slowed": "due at an endpoint whose RATE is used up",
    "scheduled": "scheduled for later",
    "held": "leased by others",
    "waiting": "waiting behind others",
    "foreign": "not for this process",
}
_REPAIRS = {
    "held": "that another process works on",
    "free": "not finished",
}


class Tally:
    """What this process finished while it was counted, by state, and where it looked."""

    def __init__(self) -> None:
        self.finished: Counter[str] = Counter()
        self._outboxes: set[str] = set()
        self._lock = Lock()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count inside of the block."""
        delivery_finished.connect(self._note, weak=False)
        try:
            yield
        finally:
            delivery_finished.disconnect(self._note)

    def looked(self, using: str) -> None:
        """Note that the outbox of this database was looked into."""
        self._outboxes.add(using)

    def report(self, scope: Scope, slowed: Collection[str] = (), *, whole: bool = True) -> str:
        """Say in a line what was finished, and what is left for later and for others.

        ``slowed`` are the endpoints whose ``RATE`` is used up. ``whole`` says that every outbox
        could be looked into: else nobody knows that nothing is left.
        """
        done = [("Delivered", State.DELIVERED), ("failed", State.FAILED)]
        if self.finished[State.CANCELLED]:
            done.append(("cancelled", State.CANCELLED))
        said = ", ".join(f"{word} {self.finished[state]}" for word, state in done)
        left = self._left(scope, slowed)
        return f"{said}. {left or ('Nothing is left.' if whole else '')}".rstrip()

    def _left(self, scope: Scope, slowed: Collection[str]) -> str:
        left: Counter[str] = Counter()
        repairs: Counter[str] = Counter()
        for using in sorted(self._outboxes):
            try:
                left += left_on(using, scope, slowed)
                repairs += repairs_on(using, scope)
            except Error as error:
                reason = " ".join(str(error).split())
                return f"What is left in {using!r} can't be counted: {reason}"
            except Exception as error:
                # In a test the worker's threads may look where the test itself may not.
                if not is_refused_by_test(error):
                    raise
        named = [f"{left[kind]} {words}" for kind, words in _LEFT.items() if left[kind]]
        for kind, words in _REPAIRS.items():
            if number := repairs[kind]:
                named.append(f"{number} {'repair' if number == 1 else 'repairs'} {words}")
        return f"Left: {', '.join(named)}." if named else ""

    def _note(self, delivery: Delivery, **kwargs: Any) -> None:
        with self._lock:  # each sender tells of what it settled
            self.finished[delivery.state] += 1


def left_on(using: str, scope: Scope, slowed: Collection[str] = ()) -> Counter[str]:
    """Count what is unfinished in an outbox, by what has to happen before it is sent."""
    left: Counter[str] = Counter()
    barred = bars.standing(using).barred
    for group in unfinished_groups(using):
        mine = (
            group["environment"] == scope.environment
            and scope.includes(group["endpoint"])
            and (group["dispatch"], group["model"]) in scope.dispatches
        )
        kinds = {name: name for name in ("scheduled", "held", "waiting")}
        kinds["due"] = _why_due(group["endpoint"], barred, slowed)
        for name, kind in kinds.items():
            left[kind if mine else "foreign"] += group[name]
    return left


def _why_due(endpoint: str, barred: Mapping[str, float], slowed: Collection[str]) -> str:
    """Say what kind of due it is, which nobody took: the endpoint may be barred."""
    if endpoint in barred:
        return "paused" if barred[endpoint] == inf else "open"
    return "slowed" if endpoint in slowed else "due"


def repairs_on(using: str, scope: Scope) -> Counter[str]:
    """Count the repairs that are not finished, by whether another process works on them."""
    repairs = Repair.objects.using(using).filter(environment=scope.environment).open()
    held = repairs.filter(taken_until__gte=DatabaseNow()).exclude(taken_by=claims.holder())
    return Counter(held=(others := held.count()), free=repairs.count() - others)
