"""Managers whose bulk operations are told as saves are."""

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar

from django.apps import apps
from django.db.models import Manager, Model, QuerySet

from signal_dispatch import bulk
from signal_dispatch.databases import alias_for_writing
from signal_dispatch.deadlocks import in_one_transaction
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.events import Event

logger = logging.getLogger("signal_dispatch")

ModelT = TypeVar("ModelT", bound=Model)
# Deletes in bulk are heard whatever the manager, and events of one's own come from no manager.
_WRITTEN_IN_BULK = {Event.CREATED, Event.UPDATED}


class DispatchQuerySet(QuerySet[ModelT]):
    """A queryset whose bulk operations record deliveries, in the transaction of their write.

    Use it as the base of a queryset of your own. Where nobody is to be told, because no dispatch
    is registered or all are ``suppressed()``, it does what Django's does.
    """

    def update(self, **kwargs: Any) -> int:
        """Update the rows, and tell of each as a save would: ``when_changed`` is heeded."""
        told = bulk.hears_of_updates(bulk.dispatches_of(self.model, kwargs))
        if not told:
            return super().update(**kwargs)
        if not self._names_of_key().isdisjoint(kwargs):
            logger.warning(
                "update() changes the key of %s: of that nobody is told. Say enqueue() for the "
                "rows with the new key.",
                self.model._meta.label,
                extra={"action": "bulk_untold"},
            )
            return super().update(**kwargs)
        # Without a query, but with all that Django has to say against it: of slices, names, unions.
        super(DispatchQuerySet, self.none()).update(**kwargs)
        using = alias_for_writing(self)

        def write(rows: Any) -> int:
            return super(DispatchQuerySet, rows).update(**kwargs)  # noqa: UP008 - these, not self

        return bulk.update(self.using(using), using, told, write)

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_update(
        self, objs: Iterable[ModelT], fields: Iterable[str], batch_size: int | None = None
    ) -> int:
        """Update the objects' rows, and tell of each as a save would."""
        fields = list(fields)
        if not bulk.hears_of_updates(bulk.dispatches_of(self.model, fields)):
            return super().bulk_update(objs, fields, batch_size)
        using, objects = alias_for_writing(self), list(objs)
        rows, size = self.using(using), min(batch_size or bulk.BATCH, bulk.BATCH)

        # Not deferred on SQLite. Django calls update() for each batch, which tells of it.
        return in_one_transaction(
            using, lambda _alone: super(DispatchQuerySet, rows).bulk_update(objects, fields, size)
        )

    bulk_update.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(
        self,
        objs: Iterable[ModelT],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,  # noqa: FBT001, FBT002 - Django's signature
        update_conflicts: bool = False,  # noqa: FBT001, FBT002
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[ModelT]:
        """Insert the objects, and tell of each as a save would.

        Raises ``NotSupportedError`` where the database does not say which keys they got (MySQL).
        """
        objects: Sequence[ModelT] = list(objs)
        told = bulk.dispatches_of(self.model)
        using = alias_for_writing(self)
        rows = self.using(using) if told else self

        def write(some: Sequence[ModelT]) -> list[ModelT]:
            return super(DispatchQuerySet, rows).bulk_create(
                some, batch_size, ignore_conflicts, update_conflicts, update_fields, unique_fields
            )

        if not told or not objects:
            return write(objects)
        if ignore_conflicts or update_conflicts:
            bulk.upsert(self.model, objects, using, told, write, updates=update_conflicts)
        else:
            bulk.create(self.model, objects, using, told, write)
        return list(objects)

    def _names_of_key(self) -> set[str]:
        return {"pk", *(name for f in self.model._meta.pk_fields for name in (f.name, f.attname))}


_Base = Manager.from_queryset(DispatchQuerySet)


class DispatchManager(_Base[ModelT]):
    """A manager whose bulk operations record deliveries: ``objects = DispatchManager()``."""


def silent_managers(dispatch: ModelDispatch[Any]) -> list[str]:
    """Return the names of managers of its model whose bulk operations make no call of a dispatch.

    None where it would hear of none of them anyway. Those of the model's proxies and multi-table
    children are named with their model, and once: an inherited manager where it comes from.
    """
    if _WRITTEN_IN_BULK.isdisjoint(dispatch.events):
        return []
    model = dispatch.model
    heirs = {m for m in apps.get_models() if issubclass(m, model)} - {model}
    found: dict[int, tuple[Any, str]] = {}
    for each in (model, *sorted(heirs, key=lambda m: (len(m.__mro__), m._meta.label))):
        prefix = "" if each is model else f"{each._meta.label}."
        for manager in each._meta.managers:
            found.setdefault(manager.creation_counter, (manager, f"{prefix}{manager.name}"))
    return [name for manager, name in found.values() if not _records(manager)]


def _records(manager: Any) -> bool:
    try:
        return isinstance(manager.get_queryset(), DispatchQuerySet)
    except Exception:  # noqa: BLE001 - one that wants a tenant, say: its class tells nothing else
        return True
