"""Notice deletes on the far side of a relation, of which Django sends no ``m2m_changed``."""

from dataclasses import dataclass, field
from typing import Any

from django.db import connections, router
from django.db.models import Model

from signal_dispatch import relations
from signal_dispatch.databases import take_write_lock
from signal_dispatch.relations import Relation

_REMOVAL = "signal_dispatch_removal"


@dataclass(slots=True)
class _Removal:
    """What one delete() is about to do to the objects of dispatches, by their keys.

    ``bereft`` lose something on the far side; ``gone`` are deleted themselves.
    """

    bereft: dict[Relation, set[Any]] = field(default_factory=dict)
    gone: dict[Relation, set[Any]] = field(default_factory=dict)


def senders(relation: Relation) -> set[type[Model]]:
    """Return the models whose deletes concern the objects of a dispatch, and how they relate.

    The far side's, and the dispatch's own: one that is deleted itself is not told of.
    """
    return {_table(relation.other), _table(relation.dispatch.model)}


def about_to_be_deleted(sender: type[Model], **kwargs: Any) -> None:
    """Receive ``pre_delete``: note whom it concerns, and lock their rows.

    The relation still stands then. All of these signals come before the first row is deleted.
    """
    instance, using = kwargs.get("instance"), _alias(sender, **kwargs)
    removal = _removal_on(using)
    if instance is None or instance.pk is None or removal is None:
        return
    for relation in relations.relations():
        if _table(sender) is _table(relation.dispatch.model):
            removal.gone.setdefault(relation, set()).add(getattr(instance, relation.key))
        # Told from the far side; which is what reverse means where the far side declares it.
        if _table(sender) is _table(relation.other) and relation.concerns(
            instance, reverse=not relation.reverse
        ):
            take_write_lock(relation.dispatch.model, using)  # as for other changes of it
            keys = relation.keys_of(instance, using)
            relations.lock(relation, keys, using)
            removal.bereft.setdefault(relation, set()).update(keys)


def deleted(sender: type[Model], **kwargs: Any) -> None:
    """Receive ``post_delete``: record an UPDATED of each that lost something, and lives on.

    At the first object of the far side that is deleted all of them are, with the relation's rows.
    """
    using = _alias(sender, **kwargs)
    removal = _removal_on(using)
    if removal is None:
        return
    for relation in list(removal.bereft):
        if _table(sender) is _table(relation.other):
            keys = removal.bereft.pop(relation) - removal.gone.get(relation, set())
            if keys:
                relations.record(relation, keys, using)


def _removal_on(using: str) -> _Removal | None:
    """Return what is noted of the delete() that a signal comes from; None for one sent by hand."""
    # It runs in a block of its own, which ends with it, whatever happens, and is another one's
    # where a handler calls delete() in between. The list is as private as in merging.py;
    # tests/test_removals.py notices if it changes.
    blocks: list[Any] = connections[using].atomic_blocks
    if not blocks:
        return None
    removal: _Removal = blocks[-1].__dict__.setdefault(_REMOVAL, _Removal())
    return removal


def _alias(
    sender: type[Model], *, instance: Model | None = None, using: str | None = None, **kwargs: Any
) -> str:
    return using or (instance and instance._state.db) or router.db_for_write(sender)


def _table(model: type[Model]) -> type[Model]:
    return model._meta.concrete_model or model
