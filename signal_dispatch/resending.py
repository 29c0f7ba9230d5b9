"""Send deliveries once more under a new uid: the same call, or one built from the object anew."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.db.models import Q

from signal_dispatch import dispatcher, outbox, recording
from signal_dispatch.databases import alias_for_writing, joined_transaction, row_lock
from signal_dispatch.events import Event
from signal_dispatch.masking import is_masked
from signal_dispatch.models import UNFINISHED, Delivery, DeliveryQuerySet
from signal_dispatch.queueing import Recorded
from signal_dispatch.registry import registry
from signal_dispatch.repairing import retry

#: Deliveries that are copied in one transaction.
BATCH = 500

_IDENTITY = ("environment", "dispatch", "endpoint", "event", "model", "object_pk", "lane")
_DRAFT = ("method", "path", "headers", "body")


def resend(rows: DeliveryQuerySet) -> int:
    """Record finished deliveries again, each call as it was; return how many.

    Left out are those whose call was never built, or whose sensitive values were masked since.
    """
    return _record_copies(resendable(rows), [*_IDENTITY, *_DRAFT])


def rebuild(rows: DeliveryQuerySet) -> int:
    """Let finished deliveries go out with what their objects hold now; return how many.

    The call is built at its first attempt, behind what waits in the lane. One that was never
    tried keeps its number and its uid. Left out are DELETED ones: their object is gone.
    """
    rows = rebuildable(rows)
    using = alias_for_writing(rows)
    untried = Q(attempts=0, handler_tries=0, state="failed")
    # Taken first: what is tried again is finished no more.
    tried = sorted(rows.exclude(untried).values_list("pk", flat=True))
    fresh = sorted(rows.filter(untried).values_list("pk", flat=True))
    mine = Delivery.objects.using(using)
    for batch in _batches(fresh):
        mine.filter(untried, pk__in=batch).update(method="", path="", headers={}, body=b"")
    copies = sum(_copy(batch, _IDENTITY, using) for batch in _batches(tried))
    return copies + retry(mine.filter(pk__in=fresh))


def resendable(rows: DeliveryQuerySet) -> DeliveryQuerySet:
    """Keep those that ``resend()`` records again."""
    return rows.exclude(state__in=UNFINISHED).exclude(method="")


def rebuildable(rows: DeliveryQuerySet) -> DeliveryQuerySet:
    """Keep those that ``rebuild()`` lets go out."""
    return rows.exclude(state__in=UNFINISHED).exclude(event=Event.DELETED)


def _record_copies(rows: DeliveryQuerySet, names: Sequence[str]) -> int:
    using = alias_for_writing(rows)
    ids = sorted(rows.values_list("pk", flat=True))
    return sum(_copy(batch, names, using) for batch in _batches(ids))


def _copy(ids: Iterable[int], names: Sequence[str], using: str) -> int:
    originals = Delivery.objects.using(using).filter(pk__in=list(ids)).order_by("pk")
    with joined_transaction(using) as alone:
        sound = [each for each in originals if "body" not in names or not is_masked(each)]
        copies = [Delivery(**{name: getattr(each, name) for name in names}) for each in sound]
        _lock_objects(copies, using)
        for together in _rounds(copies):
            outbox.record_many(together, using, alone=alone)
    recorded = [Recorded(each, using) for each in copies]
    for item in recorded:
        recording.tell(item)
    dispatcher.announce(recorded, using, alone=False)
    return len(recorded)


def _rounds(copies: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    """Yield the deliveries so that each lane comes once at a time, in its order."""
    left = list(copies)
    while left:
        lanes: set[str] = set()
        together: list[Delivery] = []
        later: list[Delivery] = []
        for delivery in left:
            (later if delivery.lane and delivery.lane in lanes else together).append(delivery)
            lanes.add(delivery.lane)
        yield together
        left = later


def _lock_objects(copies: Iterable[Delivery], using: str) -> None:
    """Lock the objects, as a save does before its INSERT: lanes are in the order of commits."""
    lock = row_lock(using)
    keys: dict[str, set[Any]] = {}
    models: dict[str, Any] = {}
    for delivery in copies if lock is not None else ():
        dispatch = registry.find(delivery.dispatch, delivery.model)
        if dispatch is not None and delivery.lane:
            models[delivery.model] = dispatch.model
            keys.setdefault(delivery.model, set()).add(delivery.object_pk)
    for label in sorted(keys):
        objects = models[label]._base_manager.using(using).filter(pk__in=keys[label])
        list(objects.order_by("pk").select_for_update(**(lock or {})).values_list("pk"))


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[i : i + BATCH] for i in range(0, len(ids), BATCH))
