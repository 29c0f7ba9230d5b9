"""Find out what a save changes: the values as they stood, and as they stand now."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Model
from django.db.models.expressions import BaseExpression

from signal_dispatch import lookups
from signal_dispatch.databases import row_lock, take_write_lock
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.events import Change, Event
from signal_dispatch.exceptions import PayloadError


@dataclass(frozen=True, slots=True)
class Save:
    """One write of one table, looked at before and after."""

    instance: Model
    model: type[Model]
    dispatches: Sequence[ModelDispatch[Any]]
    using: str
    had_key: bool
    old: Mapping[str, Any] = field(default_factory=dict)

    def saved(
        self, *, created: bool, fields: Iterable[str] | None
    ) -> Iterator[tuple[ModelDispatch[Any], Change[Any]]]:
        """Yield each dispatch with its change. ``fields`` are the ``update_fields`` of the save."""
        event = Event.CREATED if created else Event.UPDATED
        old = {} if created else self.old
        new = {} if created else self._new(None if fields is None else set(fields))
        for dispatch in self.dispatches:
            tracked = dispatch.tracked if old else ()
            yield (
                dispatch,
                Change(
                    event,
                    self.instance,
                    self.using,
                    {name: old[name] for name in tracked},
                    {name: new[name] for name in tracked},
                ),
            )

    def may_have_lane(self, change: Change[Any]) -> bool:
        """Whether an earlier delivery of the object can exist: not if it has just got its key."""
        return self.had_key or change.event != Event.CREATED

    def _new(self, written: set[str] | None) -> dict[str, Any]:
        """Return what stands in the database now, for the fields that ``old`` tells of."""
        deferred = self.instance.get_deferred_fields()
        new, computed = {}, []
        for name, before in self.old.items():
            model_field: Any = self.model._meta.get_field(name)
            names = {model_field.name, model_field.attname}
            if (written is not None and not names & written) or model_field.attname in deferred:
                new[name] = before
                continue
            value = getattr(self.instance, model_field.attname)
            if isinstance(value, BaseExpression) or hasattr(value, "resolve_expression"):
                computed.append(name)
            else:
                new[name] = _normal(model_field, value, self.using)
        if computed:
            # Django 5.2 leaves the expression on the instance, and MariaDB returns no value.
            new |= _stored_values(self.model, _key(self.instance, self.model), self.using, computed)
        return new


def before_save(
    instance: Model, model: type[Model], dispatches: Sequence[ModelDispatch[Any]], using: str
) -> Save:
    """Read and lock what the dispatches track, before the table is written.

    Nothing is read for dispatches that track nothing.
    """
    key = _key(instance, model)
    old: Mapping[str, Any] = {}
    names = _tracked(dispatches)
    if names and key is not None:
        old = _stored_values(model, key, using, names, lock=True)
    return Save(instance, model, dispatches, using, had_key=key is not None, old=old)


def noticed_now(
    instance: Model, dispatches: Sequence[ModelDispatch[Any]], event: str, using: str
) -> Iterator[tuple[ModelDispatch[Any], Change[Any]]]:
    """Yield each dispatch with a change that was not watched from its beginning.

    Locks the object's row, so that deliveries of one object are recorded in the order in which
    they commit. What the database holds is both old and new, except that a DELETED compares it
    with the instance.
    """
    tables: dict[type[Model], list[ModelDispatch[Any]]] = {}
    for dispatch in dispatches:
        table = dispatch.model._meta.concrete_model or dispatch.model
        tables.setdefault(table, []).append(dispatch)
    for model, mine in tables.items():
        key = _key(instance, model)
        stored = _stored_values(model, key, using, _tracked(mine), lock=True)
        for dispatch in mine:
            old = {name: stored[name] for name in dispatch.tracked if name in stored}
            yield dispatch, Change(event, instance, using, old)


def as_read(dispatch: ModelDispatch[Any], instance: Model, event: str, using: str) -> Change[Any]:
    """Return a change of an object that was just read, with its row locked."""
    fields: list[Any] = [instance._meta.get_field(name) for name in dispatch.tracked]
    old = {
        name: _normal(f, getattr(instance, f.attname), using)
        for name, f in zip(dispatch.tracked, fields, strict=True)
    }
    return Change(event, instance, using, old, old)


def _tracked(dispatches: Iterable[ModelDispatch[Any]]) -> list[str]:
    return list(dict.fromkeys(name for d in dispatches for name in d.tracked))


def _key(instance: Model, model: type[Model]) -> Any:
    return getattr(instance, model._meta.pk.attname)


def _normal(model_field: Any, value: Any, using: str) -> Any:
    try:
        return lookups.normalise(model_field, value, using=using)
    except PayloadError:  # somebody else wrote what the field can't hold: no reason to fail a save
        return value


def _stored_values(
    model: type[Model], key: Any, using: str, names: Sequence[str], *, lock: bool = False
) -> dict[str, Any]:
    rows = model._base_manager.using(using).filter(pk=key).order_by()
    arguments = row_lock(using) if lock else None
    if arguments is not None:
        rows = rows.select_for_update(**arguments)
    elif not names:
        return {}
    elif lock:
        take_write_lock(model, using)
    fields: list[Any] = [model._meta.get_field(name) for name in names]
    row = rows.values_list(*([f.attname for f in fields] or ["pk"])).first()
    if row is None:
        return {}
    return {
        name: _normal(f, value, using) for name, f, value in zip(names, fields, row, strict=False)
    }
