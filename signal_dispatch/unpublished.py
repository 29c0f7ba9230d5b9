"""What was committed and is not published yet: bounded, an endpoint's deliveries together."""

from collections.abc import Iterator
from math import inf
from time import monotonic

from signal_dispatch.jobs import Place

#: Seconds that a delivery may wait for others to be published with.
GATHER_SECONDS = 0.05
#: Seconds before a lane is looked into again whose first delivery somebody had locked.
BLOCKED_SECONDS = 1.0
#: Deliveries that are held at most; what is beyond is found in the table.
MOST_HELD = 10_000


class Unpublished:
    """Ids by place, and lanes to look into. Not safe by itself: its owner holds a lock."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._ids: dict[Place, list[int]] = {}
        self._count, self._due_at = 0, inf
        #: Lanes that may have become free: alias and lane.
        self.lanes: set[tuple[str, str]] = set()
        self._blocked: set[tuple[str, str]] = set()
        self._blocked_until = inf

    def __bool__(self) -> bool:
        return bool(self._count or self.lanes or self._blocked)

    def hold(self, place: Place, pk: int) -> None:
        """Keep one, unless there are too many."""
        if self._count < MOST_HELD:
            mine = self._ids.setdefault(place, [])
            mine.append(pk)
            self._count += 1
            full = len(mine) >= self._batch_size
            self._due_at = -inf if full else min(self._due_at, monotonic() + GATHER_SECONDS)

    @property
    def ready_at(self) -> float:
        """Return when there is something to do, by ``monotonic()``."""
        return -inf if self.lanes else min(self._due_at, self._blocked_until)

    def take(self) -> Iterator[tuple[str, list[int]]]:
        """Return all ids in batches, each of one outbox and endpoint: one that hangs is alone."""
        ids, self._ids = self._ids, {}
        self._count, self._due_at = 0, inf
        size = self._batch_size
        return (
            (place.using, mine[start : start + size])
            for place, mine in ids.items()
            for start in range(0, len(mine), size)
        )

    def block(self, lanes: set[tuple[str, str]]) -> None:
        """Keep lanes for a while: should that transaction be rolled back, nobody else looks."""
        self._blocked |= lanes
        if self._blocked:
            self._blocked_until = min(self._blocked_until, monotonic() + BLOCKED_SECONDS)

    def take_lanes(self) -> set[tuple[str, str]]:
        """Return the lanes that are to be looked into now."""
        lanes, self.lanes = self.lanes, set()
        if self._blocked_until <= monotonic():
            lanes |= self._blocked
            self._blocked, self._blocked_until = set(), inf
        return lanes
