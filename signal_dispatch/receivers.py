"""Notice changes of mapped models, and leave every other handler as it would be without us."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.apps import apps
from django.db import router
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete

from signal_dispatch import changes, dispatcher, noticing, relations, removals, suppression
from signal_dispatch.databases import joined_transaction
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.events import Change, Event
from signal_dispatch.queueing import Recorded
from signal_dispatch.registry import registry

# _save_table is private. It is wrapped because it alone holds the write and nothing else: a
# transaction around save() or save_base() would take in everybody's post_save handlers, and
# post_save itself runs after the commit in autocommit. tests/test_receivers.py guards what is
# relied on here: its name, its arguments, and that it is called once for each table.
_NAME = "_save_table"
_SAVED = {Event.CREATED, Event.UPDATED}
_ARGUMENTS = tuple(inspect.signature(getattr(Model, _NAME)).parameters)[1:]


class Wiring:
    """What is connected for the dispatches that are registered now."""

    def __init__(self) -> None:
        # With the method of the model's own, if it has one.
        self._wrapped: dict[type[Model], Any] = {}
        self._connected: set[tuple[Any, Any, type[Model]]] = set()

    def connect(self) -> None:
        """Connect what the registered dispatches need, and nothing else."""
        saved, deleted = _listened(Event.CREATED, Event.UPDATED), _listened(Event.DELETED)
        # Those that hear of deletes only have to know what was created in the same transaction.
        self._wrap(saved | deleted)
        wanted: set[tuple[Any, Any, type[Model]]]
        wanted = {(post_save, _saved, s) for model in saved for s in _family(model)}
        wanted |= {(pre_delete, _about_to_be_deleted, s) for m in deleted for s in _same_table(m)}
        for relation in relations.relations():
            wanted.add((m2m_changed, relations.relation_changed, relation.through))
            others = _family(relation.other)
            wanted |= {(post_save, relations.saved, other) for other in others}
            for sender in (s for m in removals.senders(relation) for s in _same_table(m)):
                wanted.add((pre_delete, removals.about_to_be_deleted, sender))
                wanted.add((post_delete, removals.deleted, sender))
        for signal, receiver, sender in self._connected - wanted:
            signal.disconnect(sender=sender, dispatch_uid=_uid(receiver))
        for signal, receiver, sender in wanted - self._connected:
            signal.connect(receiver, sender=sender, weak=False, dispatch_uid=_uid(receiver))
        self._connected = wanted

    def _wrap(self, models: set[type[Model]]) -> None:
        for model in self._wrapped.keys() - models:
            own = self._wrapped.pop(model)
            if own is None:
                delattr(model, _NAME)
            else:
                setattr(model, _NAME, own)
        for model in models - self._wrapped.keys():
            self._wrapped[model] = model.__dict__.get(_NAME)
            setattr(model, _NAME, _recording(model))


wiring = Wiring()


def _listened(*events: str) -> set[type[Model]]:
    return {
        dispatch.model._meta.concrete_model or dispatch.model
        for dispatch in registry
        if dispatch.connectable and any(event in dispatch.events for event in events)
    }


def _family(model: type[Model]) -> Iterable[type[Model]]:
    """Return the model with its proxies, its multi-table children, and theirs."""
    return {model, *(m for m in apps.get_models() if issubclass(m, model))}


def _same_table(model: type[Model]) -> Iterable[type[Model]]:
    return {m for m in _family(model) if m._meta.concrete_model is model}


def _uid(receiver: Callable[..., Any]) -> str:
    return f"signal_dispatch.{receiver.__name__}"


def _recording(model: type[Model]) -> Callable[..., Any]:
    """Wrap the write of one table, so that it and the outbox's INSERT are one transaction."""
    own = model.__dict__.get(_NAME)

    def _save_table(self: Model, *args: Any, **kwargs: Any) -> Any:
        write = own.__get__(self) if own else getattr(super(model, self), _NAME)
        given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        using = given.get("using")
        if given.get("cls") is not model or given.get("raw") or not using:
            return write(*args, **kwargs)
        if not _tells_of_saves(model):  # nor does post_save come, so nothing is kept for it
            updated = write(*args, **kwargs)
        else:
            updated = _write_and_record(self, model, lambda: write(*args, **kwargs), given)
        if not updated:
            _note_creation(self, model, using)
        return updated

    return _save_table


def _write_and_record(
    instance: Model, model: type[Model], write: Callable[[], Any], given: Mapping[str, Any]
) -> Any:
    using, fields = given["using"], given.get("update_fields")
    with noticing.keeping(instance, model) as noticed:
        dispatches = _applicable(instance, model, Event.CREATED, Event.UPDATED)
        if not dispatches or _leaves_alone(instance, model, fields):
            return write()
        with joined_transaction(using) as noticed.alone:
            save = changes.before_save(instance, model, dispatches, using)
            updated = write()
            with noticing.as_in_post_save(instance, model, using):
                noticed.recorded += _record_save(
                    save, created=not updated, fields=fields, alone=noticed.alone
                )
        return updated


def _note_creation(instance: Model, model: type[Model], using: str) -> None:
    """Let dispatches that hear of deletes only know that the object is new in this transaction.

    Costs no statement, and asks no hook: CREATED is not in their ``on``.
    """
    for dispatch in _applicable(instance, model, Event.DELETED):
        if _SAVED.isdisjoint(dispatch.events):
            dispatcher.record(dispatch, Change(Event.CREATED, instance, using))


def _tells_of_saves(model: type[Model]) -> bool:
    return not all(_SAVED.isdisjoint(dispatch.events) for dispatch in registry.of_table(model))


def _saved(sender: type[Model], **kwargs: Any) -> None:
    """Register the hint for what the write recorded; record what was written another way."""
    instance = kwargs.get("instance")
    if instance is None:
        return
    relations.note_loaded(instance, raw=bool(kwargs.get("raw")))
    if kwargs.get("raw"):
        return
    noticed = noticing.take(instance)
    using = kwargs.get("using") or instance._state.db or router.db_for_write(sender)
    dispatcher.announce(noticed.recorded, using, alone=noticed.alone)
    event = Event.CREATED if kwargs.get("created") else Event.UPDATED
    for model in inspect.getmro(sender):
        if model not in noticed.models:
            missed = _applicable(instance, model, Event.CREATED, Event.UPDATED)
            _record_now(missed, instance, event, using)


def _about_to_be_deleted(sender: type[Model], **kwargs: Any) -> None:
    instance = kwargs.get("instance")
    if instance is None or instance.pk is None:
        return
    model = sender._meta.concrete_model or sender
    using = kwargs.get("using") or instance._state.db or router.db_for_write(sender)
    _record_now(_applicable(instance, model, Event.DELETED), instance, Event.DELETED, using)


def _record_save(
    save: changes.Save, *, created: bool, fields: Iterable[str] | None, alone: bool
) -> list[Recorded]:
    recorded: list[Recorded] = []
    for dispatch, change in save.saved(created=created, fields=fields):
        look = save.may_have_lane(change)
        recorded += dispatcher.record(dispatch, change, alone=alone, look=look)
    return recorded


def _record_now(
    dispatches: list[ModelDispatch[Any]], instance: Model, event: str, using: str
) -> None:
    if not dispatches:
        return
    recorded: list[Recorded] = []
    with joined_transaction(using) as alone:
        for dispatch, change in changes.noticed_now(instance, dispatches, event, using):
            recorded += dispatcher.record(dispatch, change, alone=alone, judge=False)
    dispatcher.announce(recorded, using, alone=alone)


def _applicable(instance: Model, model: type[Any], *events: str) -> list[ModelDispatch[Any]]:
    return [
        dispatch
        for dispatch in registry.of_table(model)
        if isinstance(instance, dispatch.model)
        and any(event in dispatch.events for event in events)
        and not suppression.is_suppressed(dispatch.name)
    ]


def _leaves_alone(instance: Model, model: type[Model], fields: Iterable[str] | None) -> bool:
    """Say whether a child's ``update_fields`` hold none of this parent's."""
    if fields is None or instance._meta.concrete_model is model:
        return False
    own = {name for f in model._meta.concrete_fields for name in (f.name, f.attname)}
    return own.isdisjoint(fields)
