"""Ids that the remote gives out: which call may be made while they are unknown, and keep them."""

from typing import Any

from signal_dispatch import paths, settling
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.drafts import REMOTE_ID, draft_method, draft_path, retyped, uses_remote_id
from signal_dispatch.events import Change, Event
from signal_dispatch.exceptions import SignalDispatchError
from signal_dispatch.models import Delivery, RemoteObject, State
from signal_dispatch.outcomes import Response
from signal_dispatch.settling import Settlement

#: What JSON holds that names nothing.
_NO_IDS = (bool, dict, list)


class RemoteIdMissing(SignalDispatchError):
    """The answer to a call that was taken does not hold the id that the dispatch reads from it."""


def prepare(dispatch: ModelDispatch[Any], delivery: Delivery, using: str) -> Settlement | None:
    """Settle where the first attempt goes; a settlement instead where no call may be made.

    A PATCH or DELETE must never hit the collection. Freezes what it decides, so that every
    attempt is the same call; raises ``LeaseLost`` if somebody else has the delivery by now.
    """
    if not uses_remote_id(dispatch) or delivery.attempts or delivery.handler_tries:
        return None
    known = known_id(delivery, using)
    if known is None and delivery.event == Event.DELETED:
        return Settlement(delivery, State.CANCELLED, reason="The remote never knew this object.")
    if known is None and delivery.event == Event.UPDATED:
        return _create_instead(dispatch, delivery, using)
    if REMOTE_ID not in paths.variables(delivery.path):
        return None
    if known is None:
        reason = (
            f"The path {delivery.path!r} needs the remote's id, which is not known before a "
            "CREATED or UPDATED was answered."
        )
        return Settlement(delivery, State.FAILED, error_class="build", reason=reason)
    settling.freeze(delivery, using, path=paths.expand(delivery.path, {REMOTE_ID: known}))
    return None


def _create_instead(
    dispatch: ModelDispatch[Any], delivery: Delivery, using: str
) -> Settlement | None:
    instance = dispatch.model._base_manager.using(using).filter(pk=delivery.object_pk).first()
    if instance is None:
        reason = "The remote does not know this object, and it is gone here."
        return Settlement(delivery, State.CANCELLED, reason=reason)
    change = Change(Event.CREATED, instance, using)
    method = draft_method(dispatch, change)
    path = draft_path(dispatch, change)
    if REMOTE_ID in paths.variables(path):
        reason = (
            f"The path {path!r} of CREATED needs the remote's id, and it is not known. Give path a "
            "dict by event, whose entry for Event.CREATED does without it."
        )
        return Settlement(delivery, State.FAILED, error_class="build", reason=reason)
    body = retyped(dispatch, bytes(delivery.body), delivery.event, Event.CREATED)
    settling.freeze(delivery, using, event=Event.CREATED, method=method, path=path, body=body)
    return None


def keep(dispatch: ModelDispatch[Any], delivery: Delivery, response: Response, using: str) -> None:
    """Keep the id from a response while none is known; forget it once DELETED is delivered.

    Raises ``RemoteIdMissing`` where the response holds none.
    """
    if not uses_remote_id(dispatch):
        return
    if delivery.event == Event.DELETED:
        forget_id(delivery, using)
        return
    if delivery.event not in (Event.CREATED, Event.UPDATED):
        return
    if known_id(delivery, using) is not None:
        return
    try:
        value = dispatch.get_remote_id(delivery, response)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RemoteIdMissing(_missing(dispatch, error)) from error
    if value is None or value == "" or isinstance(value, _NO_IDS):
        raise RemoteIdMissing(_missing(dispatch, None))
    keep_id(delivery, using, str(value))


def known_id(delivery: Delivery, using: str) -> str | None:
    """Return the id that the remote gave to the delivery's object, if it is known."""
    found: str | None = _remote(delivery, using).values_list("remote_id", flat=True).first()
    return found


def keep_id(delivery: Delivery, using: str, value: str) -> None:
    """Keep the remote's id for the delivery's object."""
    rows = RemoteObject.objects.using(using)
    rows.update_or_create(**_whose(delivery), defaults={"remote_id": value})


def forget_id(delivery: Delivery, using: str) -> None:
    """Forget the remote's id: the object is gone there."""
    _remote(delivery, using).delete()


def _remote(delivery: Delivery, using: str) -> Any:
    return RemoteObject.objects.using(using).filter(**_whose(delivery))


def _whose(delivery: Delivery) -> dict[str, Any]:
    names = ("environment", "dispatch", "endpoint", "model", "object_pk")
    return {name: getattr(delivery, name) for name in names}


def _missing(dispatch: ModelDispatch[Any], error: Exception | None) -> str:
    detail = f" ({type(error).__name__}: {error})" if error else ""
    place = dispatch.remote_id or "get_remote_id()"
    return f"The answer holds no id at {place!r}{detail}. Correct remote_id, or get_remote_id()."
