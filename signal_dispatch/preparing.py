"""Settle what a call carries at its first attempt, where that was left open until then."""

from datetime import datetime
from typing import Any

from django.utils import timezone

from signal_dispatch import remote_ids, settling
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.drafts import draft, uses_remote_id
from signal_dispatch.events import Change
from signal_dispatch.models import Delivery, State
from signal_dispatch.settling import Settlement

GONE = "The object is gone, so there is nothing to tell of it."


def is_prepared(dispatch: ModelDispatch[Any], delivery: Delivery) -> bool:
    """Say whether nothing was left open, as it is with most: then there is nothing to run."""
    return bool(delivery.method) and not uses_remote_id(dispatch)


def prepare(dispatch: ModelDispatch[Any], delivery: Delivery, using: str) -> Settlement | None:
    """Freeze what every attempt will carry; a settlement instead where no call may be made.

    Raises ``LeaseLost`` if somebody else has the delivery by now, and whatever the site's own
    hooks raise.
    """
    # A drafted call has a method, so one that may have been made is never drafted again. Whether
    # it is drafted late was decided when it was recorded, perhaps by an older declaration.
    if not delivery.method:
        settled = _draft_now(dispatch, delivery, using)
        if settled is not None:
            return settled
    return remote_ids.prepare(dispatch, delivery, using)


def _draft_now(dispatch: ModelDispatch[Any], delivery: Delivery, using: str) -> Settlement | None:
    instance = dispatch.model._base_manager.using(using).filter(pk=delivery.object_pk).first()
    if instance is None:
        return Settlement(delivery, State.CANCELLED, reason=GONE)
    change = Change(delivery.event, instance, using)
    at = _recorded_at(delivery) if dispatch.envelope == "standard" else None
    drafted = draft(dispatch, change, at=at)
    settling.freeze(
        delivery,
        using,
        method=drafted.method,
        path=drafted.path,
        headers=drafted.headers,
        body=drafted.body,
    )
    return None


def _recorded_at(delivery: Delivery) -> datetime:
    """Return when the change was recorded, aware."""
    recorded: datetime = delivery.created_at
    if timezone.is_aware(recorded):
        return recorded
    return timezone.make_aware(recorded, timezone.get_default_timezone())
