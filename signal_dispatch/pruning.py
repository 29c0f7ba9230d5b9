"""Take finished deliveries out of the outbox, a few at a time, beside the traffic."""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from time import monotonic
from typing import Any

from django.db import Error, connections
from django.db.models import Exists, OuterRef

from signal_dispatch.clocks import DatabaseNow, StoredMoment
from signal_dispatch.conf import settings
from signal_dispatch.databases import is_refused_by_test, own_transaction
from signal_dispatch.insertion import quoted_table
from signal_dispatch.models import Attempt, Delivery, DeliveryQuerySet, State

logger = logging.getLogger("signal_dispatch")

#: States of deliveries that may go one day, and the key of the retention that says when.
KEPT_AS = {State.DELIVERED: "delivered", State.CANCELLED: "delivered", State.FAILED: "failed"}
#: Deliveries that are looked at, and deleted, in one step.
STEP = 500
#: Seconds from one pass of a process to its next, up to a fifth more.
PASS_SECONDS = 3600.0
#: Seconds between two steps at least; else so many times what the last one took.
PAUSE_SECONDS, PAUSE_TIMES = 0.1, 4.0

_IDENTITY = ("dispatch", "endpoint", "model", "object_pk")


@dataclass(frozen=True, slots=True)
class Place:
    """The last delivery that a pass has looked at: they go by the time they were finished."""

    finished_at: datetime
    pk: int


@dataclass(frozen=True, slots=True)
class Step:
    """How many were deleted, and where to go on; ``place`` is None where nothing is left."""

    deleted: int
    place: Place | None


def expired(using: str, state: State, seconds: float | None = None) -> DeliveryQuerySet:
    """Return the deliveries of this environment that were finished long enough ago.

    By default as the retention says, which may keep them for ever; else so many ``seconds`` ago.
    """
    rows = Delivery.objects.using(using).filter(state=state, environment=settings.environment)
    if seconds is None:
        kept = settings.retention[KEPT_AS[state]]
        if kept is None:
            return rows.none()
        seconds = kept.total_seconds()
    return rows.filter(finished_at__lt=DatabaseNow(-seconds))


def step(rows: DeliveryQuerySet, using: str, after: Place | None = None) -> Step:
    """Delete the next few of these rows, of one finished state, with their attempts.

    What the order of a lane or ``is_latest`` still rests on is passed over. No signals are sent.
    """
    free, place = _look(rows, using, after)
    return Step(_delete(rows, free, using), place)


def foresee(rows: DeliveryQuerySet, using: str) -> Iterator[list[int]]:
    """Yield the numbers of those that steps would delete, step by step; deletes nothing.

    Leaves out what is free only once an earlier step has deleted others of its lane.
    """
    place = None
    while True:
        free, place = _look(rows, using, place)
        yield free
        if place is None:
            return


def _look(
    rows: DeliveryQuerySet, using: str, after: Place | None
) -> tuple[list[int], Place | None]:
    """Return which of the next few may go, and where to go on, if anywhere."""
    left = rows
    if after is not None:
        moment = StoredMoment(after.finished_at)
        left = rows.filter(finished_at__gte=moment).exclude(finished_at=moment, pk__lte=after.pk)
    found = list(left.order_by("finished_at", "id").only("finished_at", "lane", *_IDENTITY)[:STEP])
    if not found:
        return [], None
    free = [*_free_in_lanes(found, using), *_free_outside(found, using)]
    place = Place(found[-1].finished_at, found[-1].pk)
    ended = len(found) < STEP or place == after
    return free, None if ended else place


def _free_in_lanes(found: Sequence[Delivery], using: str) -> Iterable[int]:
    """Return those whose lane can do without them.

    A busy lane keeps all it has: what is to be called next may depend on what was tried before.
    While one that FAILED can be tried again, the lane keeps its latest, to tell it from that.
    """
    lane = Delivery.objects.using(using).filter(lane=OuterRef("lane"))
    later = lane.filter(state__in=State.values, pk__gt=OuterRef("pk"))
    given_up = lane.filter(state=State.FAILED, pk__lt=OuterRef("pk"))
    rows = Delivery.objects.using(using).filter(
        ~Exists(lane.unfinished()),
        Exists(later) | ~Exists(given_up),
        pk__in=[d.pk for d in found if d.lane],
    )
    return rows.values_list("pk", flat=True)


def _free_outside(found: Sequence[Delivery], using: str) -> Iterable[int]:
    """Return those without a lane that nothing older of their object may be compared with."""
    loose = [d for d in found if not d.lane]
    if not loose:
        return []
    older = Delivery.objects.using(using).unfinished()
    # By state, lane and id, just as the index goes.
    older = older.filter(lane="", pk__lt=max(d.pk for d in loose))
    for name in _IDENTITY:
        older = older.filter(**{f"{name}__in": {getattr(d, name) for d in loose}})
    first: dict[tuple[Any, ...], int] = {}
    for pk, *identity in older.order_by("id").values_list("pk", *_IDENTITY):
        first.setdefault(tuple(identity), pk)
    identities = {d.pk: tuple(getattr(d, name) for name in _IDENTITY) for d in loose}
    return [pk for pk, identity in identities.items() if first.get(identity, pk) >= pk]


def _delete(rows: DeliveryQuerySet, ids: Sequence[int], using: str) -> int:
    """Delete those that are still as they were found, and that nobody else has locked."""
    if not ids:
        return 0
    connection = connections[using]
    skip = connection.features.has_select_for_update_skip_locked
    with own_transaction(using):
        # Somebody may have them tried again just now. The locks keep late attempts out, too.
        locked = rows.filter(pk__in=ids).order_by("id").select_for_update(skip_locked=skip)
        mine = list(locked.values_list("pk", flat=True))
        if not mine:
            return 0
        numbers = ", ".join(["%s"] * len(mine))
        attempts = connection.ops.quote_name(Attempt._meta.db_table)
        with connection.cursor() as cursor:
            # Not by delete(): that reads each row first where any app listens to deletes.
            cursor.execute(f"DELETE FROM {attempts} WHERE delivery_id IN ({numbers})", mine)
            cursor.execute(f"DELETE FROM {quoted_table(using)} WHERE id IN ({numbers})", mine)
    return len(mine)


class Pruner:
    """Prune outboxes once an hour, step by step. Belongs to the bookkeeper's thread."""

    def __init__(self, aliases: Callable[[], Iterable[str]]) -> None:
        self._aliases = aliases
        self._left: list[tuple[str, State]] = []
        self._place: Place | None = None
        self._next_pass = monotonic() + PASS_SECONDS * _share()
        #: When it has to go on, by ``monotonic()``; else it has time until the next sweep.
        self.next_at = inf

    def prune(self) -> None:
        """Make one step, if a pass is due or under way. Raises nothing: calls are worth more."""
        if not self._left:
            if monotonic() < self._next_pass:
                return
            self._next_pass = monotonic() + PASS_SECONDS * (1 + 0.2 * _share())
            self._left = [(using, state) for using in self._aliases() for state in KEPT_AS]
        self.next_at = inf
        if not self._left:
            return
        using, state = self._left[0]
        began = monotonic()
        try:
            made = step(expired(using, state), using, self._place)
        except Exception as error:  # noqa: BLE001 - logged, and tried again in an hour
            self._left = [each for each in self._left if each[0] != using]
            self._place = None
            if not is_refused_by_test(error):
                _tell(using, error)
            return
        self._place = made.place
        if made.place is None:
            self._left.pop(0)
        else:
            took = monotonic() - began
            self.next_at = monotonic() + max(PAUSE_SECONDS, PAUSE_TIMES * took)


def _tell(using: str, error: Exception) -> None:
    logger.warning(
        "The outbox of the database %r could not be pruned (%s: %s). It is tried again in an hour.",
        using,
        type(error).__name__,
        error,
        exc_info=None if isinstance(error, Error) else error,
        extra={"action": "prune_failed"},
    )


def _share() -> float:
    return random.random()  # noqa: S311 - spreads load
