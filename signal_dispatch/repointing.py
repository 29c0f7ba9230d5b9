"""Give deliveries to another dispatch or endpoint: what they were made for is gone or renamed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Coalesce

from signal_dispatch import dispatcher, lanes
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.databases import alias_for_writing, own_transaction
from signal_dispatch.models import UNFINISHED, Delivery, DeliveryQuerySet, State
from signal_dispatch.queueing import Recorded
from signal_dispatch.registry import registry
from signal_dispatch.selecting import is_unheld

#: Deliveries that are written in one transaction.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Target:
    """Whom deliveries are given to; empty names leave what is there.

    ``dispatch`` and ``model`` go together, as a registered dispatch has them; ``only_of`` is the
    model whose deliveries are given to it, where those of others are not meant. Raises
    ``ValueError`` for a pair that is none, and where nothing is named.
    """

    endpoint: str = ""
    dispatch: str = ""
    model: str = ""
    only_of: str = ""

    def __post_init__(self) -> None:
        if not (self.endpoint or self.dispatch):
            raise ValueError("Name an endpoint, a dispatch, or both.")
        if self.dispatch and registry.find(self.dispatch, self.model) is None:
            raise ValueError(f"No dispatch {self.dispatch!r} is registered for {self.model!r}.")

    def given(self) -> dict[str, str]:
        """Return what is to be written, by column."""
        pairs = (("endpoint", self.endpoint), ("dispatch", self.dispatch), ("model", self.model))
        return {name: value for name, value in pairs if value}


def repoint(rows: QuerySet[Delivery], target: Target) -> int:
    """Give deliveries to the target; return how many. Those under lease stay as they are.

    What is to be sent stays as it was taken. Each goes to the end that its number gives it in its
    new lane, and waits there until what is before it is finished.
    """
    using = alias_for_writing(rows)
    if target.only_of:
        rows = rows.filter(model=target.only_of)
    ids = sorted(rows.values_list("pk", flat=True))
    batches = (ids[i : i + BATCH] for i in range(0, len(ids), BATCH))
    return sum(_repoint(batch, target, using) for batch in batches)


def movable(rows: DeliveryQuerySet) -> DeliveryQuerySet:
    """Keep those that ``repoint()`` may write."""
    return rows.exclude(~is_unheld(), state__in=UNFINISHED)


def _repoint(ids: Sequence[int], target: Target, using: str) -> int:
    rows = Delivery.objects.using(using)
    with own_transaction(using):
        found = list(movable(rows.filter(pk__in=ids)).order_by("id").select_for_update())
        touched = {delivery.lane for delivery in found}
        for delivery in found:
            for name, value in target.given().items():
                setattr(delivery, name, value)
            delivery.lane = _lane_of(delivery)
            touched.add(delivery.lane)
        rows.bulk_update(found, [*target.given(), "lane"])
        mine = rows.filter(pk__in=[d.pk for d in found]).unfinished()
        mine.exclude(lane="").update(
            # MySQL reads what was assigned before, so it stands first.
            not_before=Coalesce("available_at", "not_before"),
            available_at=None,
            state=State.WAITING,
            held_by="",
            epoch=F("epoch") + 1,
        )
        mine.filter(lane="", state=State.WAITING).update(
            available_at=Coalesce("not_before", DatabaseNow()),
            state=State.PENDING,
            epoch=F("epoch") + 1,
        )
        loose = list(mine.filter(lane="", state=State.PENDING))
        transaction.on_commit(lambda: _go_on(touched - {""}, loose, using), using=using)
    return len(found)


def _lane_of(delivery: Delivery) -> str:
    dispatch = registry.find(delivery.dispatch, delivery.model)
    ordered = bool(delivery.lane) if dispatch is None else dispatch.ordered
    if not ordered:
        return ""
    return lanes.lane_of(
        delivery.environment,
        delivery.endpoint,
        delivery.dispatch,
        delivery.model,
        delivery.object_pk,
    )


def _go_on(freed: Collection[str], loose: Sequence[Delivery], using: str) -> None:
    """Release the first of each lane, once their places in them are committed."""
    released = lanes.release_at_last(using, freed, None)
    recorded = [Recorded(delivery, using) for delivery in [*released.taken, *loose]]
    dispatcher.announce(recorded, using, alone=False)
