"""Record deliveries for objects that changed without signals."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import router
from django.db.models import Model, QuerySet

from signal_dispatch import changes, dispatcher, suppression
from signal_dispatch.databases import alias_for_writing, joined_transaction, row_lock
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.events import Event
from signal_dispatch.queueing import Recorded
from signal_dispatch.registry import registry

#: Objects whose rows are locked, and deliveries recorded, in one transaction.
BATCH = 500


def enqueue(
    objects: Model | QuerySet[Any],
    event: str = Event.UPDATED,
    dispatch: type[ModelDispatch[Any]] | str | None = None,
) -> int:
    """Record an event for an object, or for each object of a queryset; return how many rows.

    For what changed without signals: ``bulk_create``, ``QuerySet.update``, raw SQL, and data
    migrations, whose historical models are fine. It asks ``should_send`` but not
    ``when_changed``, and uses the dispatches with the event in ``on``, or the one given.
    Raises ``ValueError`` for an unsaved object, an unregistered model, an unknown event, and
    ``TypeError`` for anything that is no object and no queryset.
    """
    if not isinstance(objects, Model | QuerySet):
        raise TypeError(f"enqueue() takes an object or a queryset, not {objects!r}.")
    event, model = str(event), objects.model if isinstance(objects, QuerySet) else type(objects)
    dispatches = _chosen(model, event, dispatch)
    listed = dispatch is None
    if isinstance(objects, QuerySet):
        using = alias_for_writing(objects)
        return sum(
            _record_rows(dispatches, model, keys, event, using, listed=listed)
            for keys in _chunks(objects)
        )
    if objects.pk is None or objects._state.adding:
        raise ValueError(f"{objects!r} is not saved yet: save() it, then nothing else is needed.")
    using = objects._state.db or router.db_for_write(model)
    with joined_transaction(using) as alone:
        recorded: list[Recorded] = []
        for each, change in changes.noticed_now(objects, dispatches, event, using):
            recorded += dispatcher.record(each, change, alone=alone, judge=False, listed=listed)
    dispatcher.announce(recorded, using, alone=alone)
    return len(recorded)


def foresee(
    objects: QuerySet[Any],
    event: str = Event.UPDATED,
    dispatch: type[ModelDispatch[Any]] | str | None = None,
) -> int:
    """Count the rows that ``enqueue()`` would record, and record none; raises what it raises.

    Hooks are asked; what they write to the objects' database is taken back, and nothing else.
    """
    event = str(event)
    dispatches = _chosen(objects.model, event, dispatch)
    using, listed = alias_for_writing(objects), dispatch is None
    count = 0
    for keys in _chunks(objects):
        rows = _rows(objects.model, keys, using)
        items = [(d, changes.as_read(d, o, event, using)) for d in dispatches for o in rows]
        count += dispatcher.foresee(items, using, listed=listed)
    return count


def _chunks(objects: QuerySet[Any]) -> Iterator[Sequence[Any]]:
    keys = sorted(set(objects.values_list("pk", flat=True)))  # a join finds some twice
    return (keys[i : i + BATCH] for i in range(0, len(keys), BATCH))


def _rows(model: type[Model], keys: Sequence[Any], using: str) -> QuerySet[Any]:
    return model._base_manager.using(using).filter(pk__in=keys).order_by("pk")


def _chosen(
    model: type[Model], event: str, dispatch: type[ModelDispatch[Any]] | str | None
) -> list[ModelDispatch[Any]]:
    registered = [d for d in registry if _covers(d, model)]
    if not registered:
        labels = sorted({d.model._meta.label for d in registry})
        raise ValueError(
            f"No dispatch is registered for {model._meta.label}. Models with one: "
            f"{', '.join(labels) or 'none'}."
        )
    if dispatch is not None:
        name = dispatch if isinstance(dispatch, str) else dispatch.get_name()
        names = ", ".join(d.name for d in registered)
        registered = [d for d in registered if d.name == name]
        if not registered:
            raise ValueError(
                f"No dispatch {name!r} is registered for {model._meta.label}. Known: {names}."
            )
    known = {str(e) for d in registered for e in d.events} | (
        set(Event.values) if dispatch else set()
    )
    if event not in known:
        raise ValueError(
            f"{model._meta.label} has no event {event!r}. "
            f"Known from 'on' of its dispatches: {', '.join(sorted(known))}."
        )
    named = registered if dispatch is not None else [d for d in registered if event in d.events]
    return [d for d in named if not suppression.is_suppressed(d.name)]


def _covers(dispatch: ModelDispatch[Any], model: type[Model]) -> bool:
    # A migration's historical model is another class with the same label.
    return issubclass(model, dispatch.model) or (
        model._meta.label_lower == dispatch.model._meta.label_lower
    )


def _record_rows(
    dispatches: Sequence[ModelDispatch[Any]],
    model: type[Model],
    keys: Sequence[Any],
    event: str,
    using: str,
    *,
    listed: bool,
) -> int:
    rows = _rows(model, keys, using)
    with joined_transaction(using) as alone:
        # Locked in the order of their keys, so that two of these never wait for each other.
        lock = row_lock(using)
        objects = list(rows if lock is None else rows.select_for_update(**lock))
        recorded = dispatcher.record_many(
            [(d, changes.as_read(d, o, event, using)) for d in dispatches for o in objects],
            using,
            alone=alone,
            listed=listed,
        )
    dispatcher.announce(recorded, using, alone=alone)
    return len(recorded)
