"""Look-ups: find the value that a name such as ``customer__email`` stands for.

The checks and the way of a call read models here alike, so what a check lets pass can be built.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from inspect import isclass
from reprlib import repr as shortened
from typing import Any, TypeAlias

from django.core import exceptions
from django.core.exceptions import FieldDoesNotExist, ObjectDoesNotExist, ValidationError
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import (
    CompositePrimaryKey,
    DateTimeField,
    DecimalField,
    Field,
    FileField,
    ForeignKey,
    ForeignObjectRel,
    ManyToManyField,
    Model,
)
from django.db.models.constants import LOOKUP_SEP
from django.utils.timezone import get_default_timezone, is_naive, make_aware

from signal_dispatch.exceptions import PayloadError

AnyField: TypeAlias = "Field[Any, Any]"

#: Django 6.1 lets a query forbid later fetches; before it nothing is ever blocked.
_BLOCKED: tuple[type[Exception], ...] = (
    (exceptions.FieldFetchBlocked,) if hasattr(exceptions, "FieldFetchBlocked") else ()
)


def resolve(instance: Model, lookup: str, *, model: type[Model] | None = None) -> Any:
    """Follow a look-up through relations and attributes to a value, in its stored form.

    ``pk`` is the key that the instance has as one of ``model``, a parent of its own.
    ``None`` on the way gives ``None``. At the end a foreign key gives what its column holds, a
    many-to-many relation the list of pks in their order. A field that was not loaded, may not be
    fetched, or holds an expression is read from the instance's database.
    Raises ``PayloadError`` where a related object is missing, a name leads nowhere, or a field
    can't hold its value.
    """
    if lookup == "pk" and model is not None:
        lookup = model._meta.pk.name
    holder: Any = instance
    *way, last = lookup.split(LOOKUP_SEP)
    try:
        for name in way:
            holder = _related(holder, name)
            if holder is None:
                return None
        return _value(holder, last)
    except (ObjectDoesNotExist, AttributeError, ValueError) as error:
        raise PayloadError(f"'{lookup}' of {instance._meta.label} has no value: {error}") from error


def normalise(field: AnyField, value: Any, *, using: str = DEFAULT_DB_ALIAS) -> Any:
    """Turn a value that was set on an instance into what the database will give back.

    ``"5"`` in an integer field is 5; a Decimal has the field's places; a file is its name; a time
    is aware, in the connection's zone. ``None`` and expressions are returned as they are.
    Raises ``PayloadError`` for a value that the field can't hold.
    """
    if value is None or hasattr(value, "resolve_expression"):
        return value
    try:
        return _stored(field, value, using)
    except ValidationError as error:
        reason = " ".join(error.messages)
    except ArithmeticError:  # decimal's say nothing that a person can read
        reason = "it is too large."
    except (AttributeError, TypeError, ValueError) as error:
        reason = str(error)
    raise PayloadError(f"{field} can't hold {shortened(value)}: {reason}")


def find(model: type[Model], lookup: str) -> "AnyField | None":
    """Find the field at the end of a look-up; ``None`` where something else stands there."""
    *way, last = lookup.split(LOOKUP_SEP)
    for name in way:
        found = relation(model, name)
        if found is None or not is_model(found.related_model):
            return None
        model = found.related_model
    field = relation(model, last)
    return None if isinstance(field, ForeignObjectRel) else field


def relations_of(model: type[Model], lookup: str) -> str:
    """Return the part of a look-up that leads over columns to one related object each."""
    way: list[str] = []
    for name in lookup.split(LOOKUP_SEP)[:-1]:
        found = relation(model, name)
        if not isinstance(found, ForeignKey) or not is_model(found.related_model):
            break
        way.append(name)
        model = found.related_model
    return LOOKUP_SEP.join(way)


def many_to_many(model: type[Model], name: str) -> tuple[type[Model], str, str, bool] | None:
    """Find a many-to-many relation by the name that it has on the model, on either side.

    Returns its table's model, the names of the foreign keys there to the model and to the other
    one, and whether the other one declares it; ``None`` where the name stands for nothing such.
    """
    found = relation(model, name)
    reverse = isinstance(found, ForeignObjectRel)
    field = found.field if reverse else found
    if not isinstance(field, ManyToManyField):
        return None
    through: Any = field.remote_field.through
    own, other = field.m2m_field_name(), field.m2m_reverse_field_name()
    return (through, other, own, True) if reverse else (through, own, other, False)


def _related(holder: Any, name: str) -> Any:
    """Take one step to a related object; ``None`` where there is none."""
    try:
        return _read(holder, name)
    except ObjectDoesNotExist:
        found = relation(type(holder), name) if isinstance(holder, Model) else None
        if isinstance(found, ForeignObjectRel):  # one-to-one, from the side without a column
            return None
        raise


def _value(holder: Any, name: str) -> Any:
    field = relation(type(holder), name) if isinstance(holder, Model) else None
    if field is None or (isinstance(field, ForeignObjectRel) and not field.many_to_many):
        return _related(holder, name)
    using = holder._state.db or DEFAULT_DB_ALIAS
    if field.many_to_many:
        return _pks(_read(holder, name), using)
    if not (field.concrete or isinstance(field, CompositePrimaryKey)):
        return _read(holder, name)
    value = _read(holder, field.attname)
    if hasattr(value, "resolve_expression"):
        value = getattr(_reloaded(holder), field.attname)
    return normalise(field, value, using=using)


def _read(holder: Any, name: str) -> Any:
    try:
        return getattr(holder, name)
    except _BLOCKED:  # pragma: no cover - only Django 6.1 and later have it
        return getattr(_reloaded(holder), name)


def _reloaded(instance: Model) -> Model:
    """Load the instance anew, on the connection that wrote it and without what it forbids."""
    return type(instance)._base_manager.using(instance._state.db).get(pk=instance.pk)


def _pks(manager: Any, using: str) -> list[Any]:
    return list(manager.using(using).order_by("pk").values_list("pk", flat=True))


def _stored(field: Any, value: Any, using: str) -> Any:
    if isinstance(field, ForeignKey):
        target = field.target_field
        key = getattr(value, target.attname) if isinstance(value, Model) else value
        return normalise(target, key, using=using)
    if isinstance(field, CompositePrimaryKey):
        parts: Iterable[Any] = field.fields
        return tuple(normalise(f, v, using=using) for f, v in zip(parts, value, strict=True))
    if isinstance(field, FileField):
        return str(value)
    stored = field.to_python(value)
    if isinstance(field, DecimalField) and field.decimal_places is not None:
        return _with_places(stored, field, using)
    if isinstance(field, DateTimeField):
        return _in_zone(stored, using)
    return stored


def _with_places(value: Decimal, field: Any, using: str) -> Decimal:
    """Round as the database will: SQLite keeps all digits, and Django rounds what it reads."""
    sqlite = connections[using].vendor == "sqlite"
    rounding = ROUND_HALF_EVEN if sqlite else ROUND_HALF_UP
    step = Decimal(1).scaleb(-field.decimal_places)
    return value.quantize(step, rounding=rounding, context=field.context)


def _in_zone(value: datetime, using: str) -> datetime:
    zone = connections[using].timezone
    if zone is None:  # USE_TZ is off
        return value
    aware = make_aware(value, get_default_timezone()) if is_naive(value) else value
    return aware.astimezone(zone)


def relation(model: type[Model], name: str) -> Any:
    """Find the field, or the relation from another model, that is an attribute of this name."""
    if name == "pk":
        return model._meta.pk
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        field = None
    if field is not None and not isinstance(field, ForeignObjectRel):
        return field
    # get_field() knows a relation from elsewhere by its query name: 'order', not 'order_set'.
    relations: Iterable[ForeignObjectRel] = model._meta.related_objects
    return next((r for r in relations if r.get_accessor_name() == name), None)


def is_model(related: Any) -> bool:
    """Say whether it is a model: a generic relation, or one of a missing app, leads to none."""
    return isclass(related) and issubclass(related, Model)
