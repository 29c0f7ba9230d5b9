"""Create an object anew that the remote lost (``Outcome.recreate()``)."""

from typing import Any

from django.db import InterfaceError, OperationalError

from signal_dispatch import outbox, remote_ids
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.drafts import draft, is_drafted_later, sentence_of
from signal_dispatch.events import Change, Event
from signal_dispatch.models import Delivery, State, storable

ANEW = "The remote lost the object; another delivery creates it anew."
AGAIN = "The remote lost the object again, right after it was created anew."
GONE = "The remote lost the object, and it is gone here, too."
GONE_THERE = "The remote had lost the object, so there was nothing left to delete."

_KEPT = ("environment", "dispatch", "endpoint", "model", "object_pk", "lane", "hops", "trace")


def is_repeated(delivery: Delivery, using: str) -> bool:
    """Say whether the delivery itself was made to create the object anew."""
    rows = Delivery.objects.using(using).filter(lane=delivery.lane, state=State.FAILED)
    return rows.filter(replaced_by=delivery.pk).exists()


def successor_of(
    dispatch: ModelDispatch[Any], delivery: Delivery, using: str, *, raising: bool
) -> Delivery | None:
    """Return the delivery that creates the object, not written yet; None where it is gone.

    It has a uid of its own: some remotes keep an answer for each key, and would give it again.
    What the site's code can't build is FAILED, and its sentence says why; or it is raised.
    """
    instance = dispatch.model._base_manager.using(using).filter(pk=delivery.object_pk).first()
    if instance is None:
        return None
    made = Delivery(event=Event.CREATED, **{name: getattr(delivery, name) for name in _KEPT})
    if is_drafted_later(dispatch, Event.CREATED):
        return made
    try:
        drafted = draft(dispatch, Change(Event.CREATED, instance, using))
    except (OperationalError, InterfaceError):
        raise  # the database is unwell, not the code
    except Exception as error:
        if raising:
            raise
        made.state, made.error_class = State.FAILED, "build"
        made.reason = storable(sentence_of(dispatch, error))[:500]
        return made
    made.method, made.path = drafted.method, drafted.path
    made.headers, made.body = drafted.headers, drafted.body
    return made


def put_first(successor: Delivery, before: Delivery, using: str) -> None:
    """Write the successor at the head of the lane, in the transaction that ends its predecessor.

    The lane is never without a PENDING row meanwhile, so nothing that waits can overtake it.
    """
    remote_ids.forget_id(before, using)
    outbox.record(successor, using, lease=None, look=False)
    Delivery.objects.using(using).filter(pk=before.pk).update(replaced_by=successor.pk)
