"""Let a newer delivery replace those of its lane that still wait (``latest_wins``)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from django.db.models import F, Q
from django.db.models.functions import Coalesce

from signal_dispatch import masking
from signal_dispatch.clocks import DatabaseNow, SecondsFromNow
from signal_dispatch.events import Event
from signal_dispatch.models import Delivery, DeliveryQuerySet, State
from signal_dispatch.selecting import is_unheld

REPLACED = "A newer delivery of the same object replaced it."


@dataclass(frozen=True, slots=True)
class Legacy:
    """What a delivery takes over from those that it replaces.

    ``created``: one of them was to create the object. ``untold``: no call for the object can have
    reached the remote, and none is under way. ``wait``: the seconds until the last of them would
    have been due, so that steady saves don't cut the wait for a retry short. ``bodies``: those that
    were masked, as they were.
    """

    ids: Sequence[int] = ()
    created: bool = False
    untold: bool = False
    wait: float = 0.0
    bodies: Mapping[int, bytes] = field(default_factory=dict)

    def event(self, event: str) -> str | None:
        """Return what has to be told now; ``None`` where the remote never heard of the object."""
        if self.created and event == Event.UPDATED:
            return Event.CREATED
        if self.created and event == Event.DELETED and self.untold:
            return None
        return event


def replace(lane: str, event: str, using: str) -> Legacy:
    """Cancel the deliveries of a lane that wait, in the transaction that is open.

    One under lease stays, and one whose answer is kept: its call was made. So does an event of the
    site's own, and what came before it: the order of the others around it must not change. What is
    created again under a deleted key is another object, and its CREATED replaces nothing of the
    first one's.
    """
    rows = Delivery.objects.using(using).filter(lane=lane)
    wait = SecondsFromNow(Coalesce("available_at", "not_before"))
    unfinished = list(rows.unfinished().annotate(free=_free(), wait=wait))
    # The head first: recreate() puts one there that has the highest number.
    unfinished.sort(key=lambda d: (d.state != State.PENDING, d.pk))
    waiting = [] if event == Event.CREATED else _tail(unfinished)
    cancelled = _cancel(rows, waiting)
    if not cancelled:
        return Legacy()
    created = any(d.event == Event.CREATED for d in cancelled)
    return Legacy(
        ids=[d.pk for d in cancelled],
        created=created,
        bodies=_mask(rows, cancelled),
        untold=created and len(cancelled) == len(unfinished) and not _were_tried(rows, cancelled),
        wait=max(0.0, *(d.wait or 0.0 for d in cancelled)),  # type: ignore[attr-defined]
    )


def hand_down(legacy: Legacy, to: Delivery, using: str) -> None:
    """Note by which delivery the cancelled ones were replaced."""
    if legacy.ids:
        rows = Delivery.objects.using(using).filter(pk__in=legacy.ids)
        rows.update(replaced_by=to.pk)


def restore(legacy: Legacy, by: Delivery, using: str) -> list[Delivery]:
    """Let those wait again that were replaced by a delivery which is withdrawn."""
    if not legacy.ids:
        return []
    rows = Delivery.objects.using(using).filter(
        pk__in=legacy.ids, state=State.CANCELLED, replaced_by=by.pk
    )
    restored = list(rows.order_by("id"))
    rows.update(state=State.WAITING, finished_at=None, replaced_by=None, reason="")
    for delivery in restored:
        delivery.state = State.WAITING
        if delivery.pk in legacy.bodies:
            delivery.body = legacy.bodies[delivery.pk]
            delivery.save(using=using, update_fields=["body"])
    return restored


def _free() -> Q:
    return Q(handler_tries=0) & is_unheld()


def _tail(unfinished: Sequence[Delivery]) -> list[Delivery]:
    """Return the last ones that may be replaced, up to the first that may not."""
    tail: list[Delivery] = []
    for delivery in reversed(unfinished):
        free: bool = delivery.free  # type: ignore[attr-defined]
        if not free or delivery.event not in Event.values:
            break
        tail.append(delivery)
    return tail


def _cancel(rows: DeliveryQuerySet, waiting: Sequence[Delivery]) -> Sequence[Delivery]:
    """Cancel them, and return those that nobody took meanwhile."""
    if not waiting:
        return []
    mine = rows.filter(pk__in=[d.pk for d in waiting])
    count = (
        mine.unfinished()
        .filter(_free())
        .update(
            state=State.CANCELLED,
            # For restore(); MySQL reads what was assigned before, so it stands first.
            not_before=Coalesce("available_at", "not_before"),
            available_at=None,
            finished_at=DatabaseNow(),
            held_by="",
            epoch=F("epoch") + 1,
            reason=REPLACED,
        )
    )
    if count == len(waiting):
        return waiting
    done = set(mine.filter(state=State.CANCELLED).values_list("pk", flat=True))
    return [d for d in waiting if d.pk in done]


def _mask(rows: DeliveryQuerySet, cancelled: Sequence[Delivery]) -> dict[int, bytes]:
    """Mask what is sensitive in deliveries that are not sent, and return how it was."""
    bodies: dict[int, bytes] = {}
    for delivery in cancelled:
        masked = masking.masked_body(delivery)
        if masked is not None:
            bodies[delivery.pk] = bytes(delivery.body)
            rows.filter(pk=delivery.pk).update(body=masked)
    return bodies


def _were_tried(rows: DeliveryQuerySet, cancelled: Sequence[Delivery]) -> bool:
    """Say whether a call may have been tried for these, or those that were replaced before.

    Asked when they are cancelled, which raised the epoch of each by one: what was read sooner may
    be old by then. One that somebody held may have been sent, though no record of it came.
    """
    replaced = Q(pk__in=[d.pk for d in cancelled]) | Q(replaced_by__isnull=False)
    tried = Q(attempts__gt=0) | Q(epoch__gt=1)
    return rows.filter(replaced, tried, state=State.CANCELLED).exists()
