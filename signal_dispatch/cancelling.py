"""Give up deliveries because a person says so, and let their lanes go on."""

from collections.abc import Collection

from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet

from signal_dispatch import dispatcher, lanes, signals
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.databases import alias_for_writing, own_transaction
from signal_dispatch.models import UNFINISHED, Delivery, DeliveryQuerySet, State, storable
from signal_dispatch.queueing import Recorded
from signal_dispatch.selecting import is_unheld

#: Deliveries that are given up in one transaction.
BATCH = 500


def cancel(rows: QuerySet[Delivery], reason: str) -> int:
    """Cancel deliveries that are not finished; return how many.

    Left as they are: those under lease, for their call may be under way. What waits behind a
    cancelled one goes on once that is committed.
    """
    using = alias_for_writing(rows)
    ids = sorted(rows.filter(state__in=UNFINISHED).values_list("pk", flat=True))
    batches = (ids[i : i + BATCH] for i in range(0, len(ids), BATCH))
    return sum(_cancel(batch, using, storable(reason)[:500]) for batch in batches)


def skip(rows: QuerySet[Delivery], reason: str) -> int:
    """Cancel whatever is at the head of these deliveries' lanes, where others wait behind it."""
    return cancel(heads(rows), reason)


def heads(rows: QuerySet[Delivery]) -> DeliveryQuerySet:
    """Return what is at the head of these deliveries' lanes, where others wait behind it."""
    everything = Delivery.objects.using(alias_for_writing(rows))
    unfinished = rows.filter(state__in=UNFINISHED)
    lanes_of_them = unfinished.exclude(lane="").order_by().values("lane")
    behind = everything.filter(state=State.WAITING, lane=OuterRef("lane"))
    return everything.filter(Exists(behind), state=State.PENDING, lane__in=lanes_of_them)


def _cancel(ids: Collection[int], using: str, reason: str) -> int:
    rows = Delivery.objects.using(using).filter(pk__in=ids).unfinished()
    with own_transaction(using):
        found = list(rows.filter(is_unheld()).order_by("id").select_for_update())
        mine = Delivery.objects.using(using).filter(pk__in=[d.pk for d in found])
        mine.update(
            state=State.CANCELLED,
            available_at=None,
            finished_at=DatabaseNow(),
            held_by="",
            # Whoever slept past its lease must not settle it now.
            epoch=F("epoch") + 1,
            reason=reason,
        )
        transaction.on_commit(lambda: _go_on(found, using, reason), using=using)
    return len(found)


def _go_on(cancelled: Collection[Delivery], using: str, reason: str) -> None:
    """Tell of what was cancelled, and release what waits behind it: never in one transaction."""
    for delivery in cancelled:
        delivery.state, delivery.reason, delivery.held_by = State.CANCELLED, reason, ""
        delivery.available_at = None
        signals.delivery_finished.send_robust(sender=Delivery, delivery=delivery, using=using)
    freed = {delivery.lane for delivery in cancelled if delivery.lane}
    released = lanes.release_at_last(using, freed, None)
    dispatcher.announce([Recorded(d, using) for d in released.taken], using, alone=False)
