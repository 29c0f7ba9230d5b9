"""Check that a model has a table to watch, and its database a place for the deliveries."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage
from django.db import connections, router
from django.db.models import CharField, Field, IntegerField, Model, TextField

from signal_dispatch.checks.problems import Problem, longest, where
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.managers import silent_managers
from signal_dispatch.models import Attempt, Delivery, RemoteObject, WorkerProcess
from signal_dispatch.registry import registry

_OUTBOX = (Delivery, Attempt, RemoteObject, WorkerProcess)


def check_model(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Refuse models whose saves are not ours to watch."""
    if refusal := _refusal_of(dispatch.model):
        reason, cure = refusal
        yield Problem.MODEL_REFUSED.message(
            f"{where(dispatch)} is registered for {dispatch.model._meta.label}, which {reason}.",
            hint=cure,
        )


def check_key(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that each key fits the outbox: where it does not, the object could not be saved."""
    most = longest("object_pk")
    columns = [_with_the_value(field) for field in dispatch.model._meta.pk_fields]
    # Beside the parts a composite key has brackets, and commas between the parts.
    width = sum(_width(column) for column in columns) + (len(columns) > 1) * (len(columns) + 1)
    if width > most:
        names = ", ".join(map(str, columns))
        yield Problem.KEY_TOO_LONG.message(
            f"{where(dispatch)}: a primary key of {dispatch.model._meta.label} ({names}) can be "
            f"longer than the {most} characters that the outbox has for it.",
            hint=f"Let {names} be a CharField with a max_length of {most - 2} or less: two are for "
            "quotes."
            if len(columns) == 1
            else f"Lower the max_length of its parts: with quotes and commas all of {most} fit.",
        )


def check_outbox(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that deliveries can be written on the database that the model is written to."""
    alias = router.db_for_write(dispatch.model)
    missing = [m._meta.label for m in _OUTBOX if not router.allow_migrate_model(alias, m)]
    if missing:
        yield Problem.OUTBOX_MISSING.message(
            f"{where(dispatch)}: {dispatch.model._meta.label} is written to the database "
            f"{alias!r}, where DATABASE_ROUTERS allow no table for {', '.join(missing)}.",
            hint=f"Let allow_migrate({alias!r}, 'signal_dispatch', ...) return True or None, and "
            f"run 'manage.py migrate --database {alias}'.",
        )


def check_bulk() -> Iterator[CheckMessage]:
    """Say of which models bulk operations make no call: all in one, for it is true of most."""
    watched = (d for d in registry if not _refusal_of(d.model))
    silent = {d.model: ", ".join(names) for d in watched if (names := silent_managers(d))}
    if silent:
        models = ", ".join(f"{m._meta.label} ({names})" for m, names in silent.items())
        yield Problem.BULK_UNSEEN.message(
            f"bulk_create(), bulk_update() and update() make no call for {models}.",
            hint="Let the manager be a signal_dispatch.managers.DispatchManager, or its queryset "
            "a DispatchQuerySet; or tell of such changes with enqueue(), as for models that are "
            f"not yours. If none are made, silence {Problem.BULK_UNSEEN.id}.",
        )


def check_sqlite() -> Iterator[CheckMessage]:
    """Warn of SQLite in its default mode; the package's own transactions don't depend on it."""
    aliases = {router.db_for_write(dispatch.model) for dispatch in registry}
    for alias in sorted(aliases):
        connection = connections[alias]
        mode = connection.settings_dict["OPTIONS"].get("transaction_mode") or "DEFERRED"
        if connection.vendor == "sqlite" and mode.upper() not in ("IMMEDIATE", "EXCLUSIVE"):
            path = f'DATABASES["{alias}"]'
            yield Problem.SQLITE_NOT_IMMEDIATE.message(
                f"{path} begins its transactions {mode}: in your own transaction.atomic(), a "
                'write after a read fails with "database is locked", whatever the timeout, if '
                "a sender wrote in between.",
                hint=f"Add {_immediate(connection.settings_dict['OPTIONS'])} {path}.",
            )


def _immediate(options: Mapping[str, Any]) -> str:
    """Say what to add: settings may have no "OPTIONS" yet, and then it is a KeyError to set one."""
    entry = '"transaction_mode": "IMMEDIATE"'
    return f'{entry} to the "OPTIONS" of' if options else f'"OPTIONS": {{{entry}}} to'


def _with_the_value(field: Any) -> Any:
    """Return the column whose values a key holds: a relation's are those of its far end."""
    return _with_the_value(field.target_field) if field.remote_field else field


def _width(column: "Field[Any, Any]") -> float:
    """Return how long a value can get as JSON text, which is how the outbox keeps keys."""
    if isinstance(column, CharField):
        return (column.max_length or math.inf) + 2
    if isinstance(column, TextField):
        return math.inf  # Its max_length is for forms only.
    # An integer of 64 bits; else a moment, or a UUID.
    return 20 if isinstance(column, IntegerField) else 40


def _refusal_of(model: type[Model]) -> tuple[str, str] | None:
    """Return why a model can't have a dispatch, and what to do about it."""
    options = model._meta
    if options.abstract:
        return "is abstract and has no table", "Register it for the models that inherit from it."
    if not options.managed:
        cure = "Register it for a model whose table Django manages."
        return "is unmanaged: its table is not Django's", cure
    if options.swapped:
        return f"is swapped for {options.swapped}", f"Register it for {options.swapped}."
    if model in _OUTBOX:
        cure = "Take it out, and connect to signal_dispatch.signals, which tell of deliveries."
        return "belongs to the outbox: each call would lead to another one", cure
    return None
