"""Let deliveries go out again by hand: that ended without success, or wait for a later time."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from django.db.models import Case, F, IntegerField, Max, Min, Q, QuerySet, Value, When
from django.db.models.functions import Greatest

from signal_dispatch import dispatcher
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.databases import alias_for_writing, own_transaction, row_lock
from signal_dispatch.events import Event
from signal_dispatch.models import UNFINISHED, Delivery, DeliveryQuerySet, State
from signal_dispatch.queueing import Recorded
from signal_dispatch.registry import registry

#: Deliveries that are looked up in one statement.
BATCH = 500
# Where the answer was taken, and only what was to be done with it failed.
_ANSWERED = ~Q(error_class="too_large") & (Q(error_class="handler") | Q(handler_tries__gt=0))
_TOLD = Q(state__in=(State.DELIVERED, State.PENDING)) | (
    Q(state=State.FAILED) & (_ANSWERED | Q(error_class="too_large"))
)


def retry(rows: QuerySet[Delivery]) -> int:
    """Make deliveries due now that are FAILED, CANCELLED, or scheduled; return how many.

    Attempts go on being counted, so where the policy has none left this is one more. Where the
    handler failed, the kept answer is handled again, and no call made.

    Each goes back to its place in its lane, and waits there where the lane is busy. Left as they
    are: those under lease; those that were replaced; and a CREATED, UPDATED or DELETED where a
    later one of its lane reached the remote or is at the lane's head, for the older state would
    come last. Each lane is a transaction of its own, unless one is open.
    """
    using = alias_for_writing(rows)
    return sum(_retry_lane(lane, ids, using) for lane, ids in _by_lane(rows, using))


def foresee(rows: QuerySet[Delivery]) -> list[int]:
    """Return the numbers of those that ``retry()`` would let go out again; writes nothing."""
    using = alias_for_writing(rows)
    foreseen = []
    for lane, ids in _by_lane(rows, using):
        chosen = Delivery.objects.using(using).filter(pk__in=ids).defer("body", "headers")
        scheduled, ended = _judged(chosen, lane)
        foreseen += [delivery.pk for delivery in scheduled + ended]
    return foreseen


def _by_lane(rows: QuerySet[Delivery], using: str) -> Iterator[tuple[str, list[int]]]:
    """Yield the numbers of those that may go back, lane by lane."""
    ids = sorted(rows.values_list("pk", flat=True))
    for i in range(0, len(ids), BATCH):
        found = Delivery.objects.using(using).filter(may_go_back(), pk__in=ids[i : i + BATCH])
        lanes: dict[str, list[int]] = {}
        for lane, pk in found.order_by("id").values_list("lane", "pk"):
            lanes.setdefault(lane, []).append(pk)
        yield from lanes.items()


def _judged(chosen: DeliveryQuerySet, lane: str) -> tuple[list[Delivery], list[Delivery]]:
    """Return which of these go out again: the scheduled ones, and those that had ended."""
    answered = Case(When(_ANSWERED, then=True), default=False)
    found = chosen.filter(may_go_back()).annotate(answered=answered).order_by("id")
    scheduled = [d for d in found if d.state == State.PENDING]
    ended = [d for d in found if d.state != State.PENDING]
    if lane:
        ended = _not_outrun(ended, Delivery.objects.using(chosen.db).filter(lane=lane))
    return scheduled, ended


def _retry_lane(lane: str, ids: Collection[int], using: str) -> int:
    rows = Delivery.objects.using(using)
    in_lane = rows.filter(lane=lane)
    with own_transaction(using):
        if lane:
            _lock(in_lane, ids, using)
        scheduled, ended = _judged(rows.filter(pk__in=ids).select_for_update(), lane)
        ready = ended
        if lane:
            ready = ended[:1] if _is_first(ended, in_lane) else []
        _write(rows, [*scheduled, *ready], State.PENDING)
        _write(rows, [d for d in ended if d not in ready], State.WAITING)
    back = scheduled + ended
    dispatcher.announce([Recorded(d, using) for d in back], using, alone=True)
    return len(back)


def may_go_back() -> Q:
    """Return the condition that ``retry()`` has something to do for a delivery."""
    ended = Q(state__in=(State.FAILED, State.CANCELLED), replaced_by__isnull=True)
    # What a DELETED carries can't be taken any more where it could not be built in its time.
    ended &= ~Q(event=Event.DELETED, method="")
    return ended | Q(state=State.PENDING, held_by="", available_at__gt=DatabaseNow())


def _lock(in_lane: DeliveryQuerySet, ids: Collection[int], using: str) -> None:
    """Keep out whoever records for the object, then whoever releases or settles in its lane.

    In this order, which is that of a save.
    """
    lock, one = row_lock(using), in_lane.filter(pk__in=ids).first()
    if lock is None or one is None:  # on SQLite this is the one writer
        return
    dispatch = registry.find(one.dispatch, one.model)
    if dispatch is not None:
        objects = dispatch.model._base_manager.using(using).filter(pk=one.object_pk)
        list(objects.select_for_update(**lock).values_list("pk"))
    unfinished = in_lane.filter(state__in=UNFINISHED).select_for_update()
    list(unfinished.order_by("id").values_list("pk"))


def _not_outrun(ended: Sequence[Delivery], in_lane: DeliveryQuerySet) -> list[Delivery]:
    """Leave out those whose state a later delivery told, or is about to tell."""
    # Their states are named once more, alone, so that the index on state and lane answers.
    states = (State.DELIVERED, State.PENDING, State.FAILED)
    told = in_lane.filter(_TOLD, state__in=states, event__in=Event.values)
    last = told.aggregate(last=Max("id"))["last"] or 0
    return [
        delivery
        for delivery in ended
        # An event of the site's own is no state, and an answer that is handled is no call.
        if delivery.pk >= last or delivery.event not in Event.values or delivery.answered  # type: ignore[attr-defined]
    ]


def _is_first(ended: Sequence[Delivery], in_lane: DeliveryQuerySet) -> bool:
    """Say whether the lane is idle, and nothing waits in it before these."""
    if not ended or in_lane.filter(state=State.PENDING).exists():
        return False
    first = in_lane.filter(state=State.WAITING).aggregate(first=Min("id"))["first"]
    return first is None or ended[0].pk < first


def _write(rows: DeliveryQuerySet, deliveries: Sequence[Delivery], state: State) -> None:
    if not deliveries:
        return
    kept = Greatest("handler_tries", Value(1), output_field=IntegerField())
    values: dict[str, Any] = {
        "available_at": DatabaseNow() if state == State.PENDING else None,
        "not_before": None,
        "held_by": "",
        "finished_at": None,
        # Whoever had it before it ended must not settle it now.
        "epoch": F("epoch") + 1,
        # With a try behind it, the kept answer is what comes next; without, a call.
        "handler_tries": Case(When(_ANSWERED, then=kept), default=Value(0)),
        "state": state,
    }
    rows.filter(pk__in=[d.pk for d in deliveries]).update(**values)
    for delivery in deliveries:
        delivery.state = state
