"""Record what a bulk operation writes: Django sends no signals for it, and says too little."""

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from django.db import NotSupportedError, connections
from django.db.models import Model, Q, QuerySet, UniqueConstraint

from signal_dispatch import changes, dispatcher, suppression
from signal_dispatch.databases import (
    joined_transaction,
    reads_old_snapshots,
    row_lock,
    take_write_lock,
)
from signal_dispatch.deadlocks import in_one_transaction
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.events import Change, Event
from signal_dispatch.queueing import Recorded
from signal_dispatch.registry import registry

logger = logging.getLogger("signal_dispatch")

T = TypeVar("T")

#: Objects whose rows are locked and read, and whose deliveries are recorded, at once.
BATCH = 500
#: The same where they are found again by several columns: SQLite bounds an expression's depth.
_FEW = 100


def dispatches_of(
    model: type[Model], names: Iterable[str] | None = None
) -> list[ModelDispatch[Any]]:
    """Return the dispatches that hear of objects of this model, as it is used here.

    ``names`` are the fields that are written: a parent whose own are not among them hears nothing.
    """
    found = []
    for table in inspect.getmro(model):
        mine = [d for d in registry.of_table(table) if d.connectable and issubclass(model, d.model)]
        if mine and (names is None or _writes(table, model, names)):
            found += [d for d in mine if not suppression.is_suppressed(d.name)]
    return found


def hears_of_updates(dispatches: Iterable[ModelDispatch[Any]]) -> list[ModelDispatch[Any]]:
    """Keep those that are told of updates."""
    return [d for d in dispatches if Event.UPDATED in d.events]


def update(
    rows: QuerySet[Any],
    using: str,
    dispatches: Sequence[ModelDispatch[Any]],
    write: Callable[[QuerySet[Any]], int],
) -> int:
    """Write to the rows in one transaction with the deliveries of those that change.

    ``write`` is called with some of the rows at a time; returns how many it wrote. The rows are
    locked first, in the order of their keys, so old values are true, and what is told is what was
    written.
    """

    def work(alone: bool) -> tuple[int, list[Recorded], bool]:  # noqa: FBT001 - it is called with
        take_write_lock(rows.model, using)  # before the first read
        keys = sorted(set(rows.order_by().values_list("pk", flat=True)))
        recorded: list[Recorded] = []
        written = 0
        for some in chunks(keys, BATCH):
            before = _locked(rows.model, some, using, dispatches)
            # Another transaction may have changed them until the lock was had.
            left = _as_committed(rows.filter(pk__in=list(before)), using)
            mine = list(left.values_list("pk", flat=True))
            written += write(rows.filter(pk__in=mine))
            told = _updates(dispatches, _read(rows.model, mine, using), before, using)
            recorded += dispatcher.record_many(told, using, alone=alone, judge=True)
        return written, recorded, alone

    written, recorded, alone = in_one_transaction(using, work)
    dispatcher.announce(recorded, using, alone=alone)
    return written


def create(
    model: type[Model],
    objects: Sequence[Any],
    using: str,
    dispatches: Sequence[ModelDispatch[Any]],
    write: Callable[[Sequence[Any]], Any],
) -> None:
    """Insert the objects in one transaction with the deliveries that tell of them.

    Raises ``NotSupportedError`` where the database would not say which keys they got.
    """
    if any(o.pk is None for o in objects):
        _require_keys(model, using)
    with joined_transaction(using) as alone:
        write(objects)
        recorded: list[Recorded] = []
        for some in chunks(objects, BATCH):
            told = [(d, Change(Event.CREATED, o, using)) for d in dispatches for o in some]
            recorded += dispatcher.record_many(told, using, alone=alone)
    dispatcher.announce(recorded, using, alone=alone)


def upsert(
    model: type[Model],
    objects: Sequence[Any],
    using: str,
    dispatches: Sequence[ModelDispatch[Any]],
    write: Callable[[Sequence[Any]], Any],
    *,
    updates: bool,
) -> None:
    """Insert the objects where none is in the way; else leave or update what is.

    No database tells which of these happened. So those that may be in the way are looked for
    first, by their unique columns, and locked; afterwards what was not there is new.
    """
    with joined_transaction(using) as alone:
        take_write_lock(model, using)
        recorded: list[Recorded] = []
        lost = 0
        for some in chunks(objects, _FEW):
            there = _same(model, some)
            rows = model._base_manager.using(using)
            keys = sorted(rows.filter(there).values_list("pk", flat=True)) if there else []
            before = _locked(model, keys, using, dispatches)
            write(some)
            # With updates the database gives back the keys, where it can.
            there |= Q(pk__in=[o.pk for o in some if o.pk is not None])
            after = list(rows.filter(there).order_by("pk")) if there else []
            lost += sum(1 for o in some if o.pk is None and not _same(model, [o]))
            new = [o for o in after if o.pk not in before]
            told = [(d, Change(Event.CREATED, o, using)) for d in dispatches for o in new]
            recorded += dispatcher.record_many(told, using, alone=alone)
            if updates:
                old = [o for o in after if o.pk in before]
                heard = hears_of_updates(dispatches)
                told = list(_updates(heard, old, before, using))
                recorded += dispatcher.record_many(told, using, alone=alone, judge=True)
    dispatcher.announce(recorded, using, alone=alone)
    if lost:
        logger.warning(
            "bulk_create() of %s does not say which rows it wrote, and %s of its objects have "
            "nothing unique to find them by: of these nobody is told. Say enqueue() for them.",
            model._meta.label,
            lost,
            extra={"action": "bulk_untold"},
        )


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield so many of the items at a time."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def _writes(table: type[Any], model: type[Model], names: Iterable[str]) -> bool:
    if model._meta.concrete_model is table:
        return True
    own = {name for f in table._meta.concrete_fields for name in (f.name, f.attname)}
    return not own.isdisjoint(names)


def _require_keys(model: type[Model], using: str) -> None:
    if not connections[using].features.can_return_rows_from_bulk_insert:
        raise NotSupportedError(
            f"bulk_create() of {model._meta.label}: the database {using!r} does not say which "
            "keys the new rows got, so nobody could be told of them. Set the keys, save() the "
            "objects one by one, or use suppressed() and tell of them with enqueue()."
        )


def _locked(
    model: type[Model], keys: Sequence[Any], using: str, dispatches: Iterable[ModelDispatch[Any]]
) -> dict[Any, Any]:
    """Lock the rows, and return them by key, with no more read than the dispatches track."""
    if not keys:
        return {}
    names = {name for d in dispatches for name in d.tracked}
    rows = model._base_manager.using(using).filter(pk__in=keys).order_by("pk").only("pk", *names)
    lock = row_lock(using)
    return {o.pk: o for o in (rows if lock is None else rows.select_for_update(**lock))}


def _read(model: type[Model], keys: Sequence[Any], using: str) -> list[Any]:
    rows = model._base_manager.using(using).filter(pk__in=keys).order_by("pk")
    return list(_as_committed(rows, using))


def _as_committed(rows: QuerySet[Any], using: str) -> QuerySet[Any]:
    """Read locked rows as their writes will find them, rather than in an older snapshot."""
    return rows.select_for_update() if reads_old_snapshots(connections[using]) else rows


def _updates(
    dispatches: Iterable[ModelDispatch[Any]],
    objects: Sequence[Any],
    before: dict[Any, Any],
    using: str,
) -> Iterator[tuple[ModelDispatch[Any], Change[Any]]]:
    for dispatch in dispatches:
        for each in objects:
            old = changes.as_read(dispatch, before[each.pk], Event.UPDATED, using).old
            new = changes.as_read(dispatch, each, Event.UPDATED, using).new
            yield dispatch, Change(Event.UPDATED, each, using, old, new)


def _same(model: type[Model], objects: Sequence[Any]) -> Q:
    """Return what rows have that one of these objects can't stand beside."""
    found = Q()
    for columns in filter(None, _unique_columns(model)):
        values = [[getattr(o, f.attname) for f in columns] for o in objects]
        known = [v for v in values if not any(_is_open(each) for each in v)]
        if len(columns) == 1 and known:
            found |= Q(**{f"{columns[0].attname}__in": [v[0] for v in known]})
        elif known:
            names = [f.attname for f in columns]
            for each in known:
                found |= Q(**dict(zip(names, each, strict=True)))
    return found


def _is_open(value: Any) -> bool:
    """Say whether nothing can be looked up by the value: NULL, or what the database computes."""
    return value is None or hasattr(value, "resolve_expression")


def _unique_columns(model: type[Model]) -> Iterator[Sequence[Any]]:
    """Yield sets of columns that no two rows have alike."""
    meta = model._meta
    yield meta.pk_fields
    for field in meta.concrete_fields:
        if field.unique and not field.primary_key:
            yield [field]
    for names in meta.unique_together:
        yield [meta.get_field(name) for name in names]
    for constraint in meta.constraints:
        if isinstance(constraint, UniqueConstraint) and not constraint.condition:
            yield [meta.get_field(name) for name in constraint.fields]
