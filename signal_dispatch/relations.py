"""Notice changes of many-to-many relations that a dispatch counts as part of its object."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Model, QuerySet

from signal_dispatch import changes, dispatcher, lookups, suppression
from signal_dispatch.databases import joined_transaction, row_lock, take_write_lock
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.events import Event
from signal_dispatch.registry import registry

# On the instance between the two signals of one change, and after a fixture wrote it.
_AFFECTED = "signal_dispatch_affected"
_LOADED = "signal_dispatch_loaded"


_UnderWay = tuple[type[Model], str, "dict[Relation, Collection[Any]]"]


@dataclass(frozen=True, slots=True)
class Relation:
    """One of a dispatch's ``m2m_fields``, seen from the dispatch's model.

    ``near`` and ``far`` are the foreign keys of its table, to the dispatch's object and to the
    other one; ``reverse`` says that the other model declares it.
    """

    dispatch: ModelDispatch[Any]
    through: type[Model]
    near: str
    far: str
    reverse: bool

    @property
    def other(self) -> type[Model]:
        """The model on the far side."""
        far: Any = self.through._meta.get_field(self.far)
        other: type[Model] = far.related_model
        return other

    @property
    def key(self) -> str:
        """The column of the dispatch's model that the table refers to; nearly always the pk."""
        near: Any = self.through._meta.get_field(self.near)
        return str(near.target_field.attname)

    def is_of(self, instance: Model, *, reverse: bool) -> bool:
        """Say whether the instance of a signal is the dispatch's object, not the other one."""
        return reverse == self.reverse and isinstance(instance, self.dispatch.model)

    def concerns(self, instance: Model, *, reverse: bool) -> bool:
        """Say whether a change told of this instance may change an object of the dispatch."""
        if suppression.is_suppressed(self.dispatch.name):
            return False
        # Objects that were only counted by their keys were not used as a proxy.
        others = reverse != self.reverse and not self.dispatch.model._meta.proxy
        return others or self.is_of(instance, reverse=reverse)

    def keys_of(self, other: Model, using: str) -> set[Any]:
        """Return the keys of the dispatch's objects that an object on the far side belongs to."""
        near: Any = self.through._meta.get_field(self.near)
        rows = self.through._base_manager.using(using).filter(**{self.far: other})
        return set(rows.values_list(near.attname, flat=True))

    def objects(self, keys: Collection[Any], using: str) -> QuerySet[Any]:
        """Return the dispatch's objects that have these keys, always in the same order."""
        rows: QuerySet[Any] = self.dispatch.model._base_manager.using(using)
        return rows.filter(**{f"{self.key}__in": list(keys)}).order_by("pk")


def relations() -> Iterator[Relation]:
    """Yield what the registered dispatches watch. A system check tells of names that are none."""
    for dispatch in registry:
        if dispatch.connectable and Event.UPDATED in dispatch.events:
            for name in dispatch.related:
                found = lookups.many_to_many(dispatch.model, name)
                if found is not None:
                    yield Relation(dispatch, *found)


def relation_changed(
    sender: type[Model], instance: Model, action: str, using: str, **kwargs: Any
) -> None:
    """Receive ``m2m_changed``: before, lock the rows of those it concerns; after, record it.

    Two concurrent changes of one object would otherwise be told without each other. The rows are
    locked before the relation's are written: MariaDB's foreign keys make a deadlock of the other
    order.
    """
    if kwargs.get("raw") or instance._state.__dict__.get(_LOADED):
        return
    # A handler that changes another relation of the same instance comes between its signals.
    under_way: list[_UnderWay] = instance._state.__dict__.setdefault(_AFFECTED, [])
    if action.startswith("pre_"):
        affected = _affected(sender, instance, action, using, **kwargs)
        under_way.append((sender, action, affected))
        return
    while under_way:
        table, begun, affected = under_way.pop()
        # One that raised in between left what it was about to do.
        if (table, begun.removeprefix("pre_")) == (sender, action.removeprefix("post_")):
            for relation, keys in affected.items():
                record(relation, keys, using)
            return


def saved(sender: type[Model], instance: Model | None = None, **kwargs: Any) -> None:
    """Receive ``post_save`` of the other side."""
    if instance is not None:
        note_loaded(instance, raw=bool(kwargs.get("raw")))


def note_loaded(instance: Model, *, raw: bool) -> None:
    """Note that a fixture wrote the instance: its relations follow, and make no call.

    Before Django 6.1 their signal does not say so itself.
    """
    if raw:
        instance._state.__dict__[_LOADED] = True
    else:
        instance._state.__dict__.pop(_LOADED, None)


def _affected(
    sender: type[Model], instance: Model, action: str, using: str, *, reverse: bool, **kwargs: Any
) -> dict[Relation, Collection[Any]]:
    """Find out which objects of which dispatches change, and lock their rows."""
    affected = {}
    for relation in relations():
        if relation.through is sender and relation.concerns(instance, reverse=reverse):
            take_write_lock(relation.dispatch.model, using)  # Django, too, reads before it writes
            keys = _keys(relation, instance, action, using, reverse=reverse, **kwargs)
            if keys:
                lock(relation, keys, using)
                affected[relation] = keys
    return affected


def _keys(
    relation: Relation,
    instance: Model,
    action: str,
    using: str,
    *,
    reverse: bool,
    pk_set: set[Any] | None,
    **kwargs: Any,
) -> Collection[Any]:
    """Return the keys of the dispatch's objects whose relation really changes."""
    own = relation.is_of(instance, reverse=reverse)
    if action == "pre_add":  # Django names only those that are not there
        return ([getattr(instance, relation.key)] if pk_set else []) if own else pk_set or []
    here, there = (relation.near, relation.far) if own else (relation.far, relation.near)
    rows = relation.through._base_manager.using(using).filter(**{here: instance})
    if action == "pre_remove":
        rows = rows.filter(**{f"{there}__in": pk_set or ()})
    near: Any = relation.through._meta.get_field(relation.near)
    return set(rows.values_list(near.attname, flat=True))


def lock(relation: Relation, keys: Collection[Any], using: str) -> None:
    """Lock the rows of a dispatch's objects; SQLite's one writer needs it not."""
    arguments = row_lock(using)
    if arguments is not None:
        list(relation.objects(keys, using).select_for_update(**arguments).values_list("pk"))


def record(relation: Relation, keys: Collection[Any], using: str) -> None:
    """Record an UPDATED of each object, as it stands in the database.

    The instance that the site has in hand may be older, or hold what was never saved.
    """
    dispatch = relation.dispatch
    with joined_transaction(using) as alone:
        found = [
            (dispatch, changes.as_read(dispatch, one, Event.UPDATED, using))
            for one in relation.objects(keys, using)
        ]
        if len(found) == 1:
            recorded = dispatcher.record(*found[0], alone=alone, judge=False)
        else:
            recorded = dispatcher.record_many(found, using, alone=alone)
    dispatcher.announce(recorded, using, alone=alone)
