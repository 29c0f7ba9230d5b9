"""Check that a model has a table to watch, and its database a place for the deliveries."""

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage
from django.db import connections, router

from signal_dispatch.checks.problems import Problem, where
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.models import Attempt, Delivery, RemoteObject
from signal_dispatch.registry import registry

_OUTBOX = (Delivery, Attempt, RemoteObject)


def check_model(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Refuse models whose saves are not ours to watch."""
    reason = _reason_against(dispatch)
    if reason:
        yield Problem.MODEL_REFUSED.message(
            f"{where(dispatch)} is registered for {dispatch.model._meta.label}, which {reason}.",
            hint="Register it for a model with a table that Django manages.",
        )


def check_outbox(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that deliveries can be written on the database that the model is written to."""
    alias = router.db_for_write(dispatch.model)
    missing = [m._meta.label for m in _OUTBOX if not router.allow_migrate_model(alias, m)]
    if missing:
        yield Problem.OUTBOX_MISSING.message(
            f"{where(dispatch)}: {dispatch.model._meta.label} is written to the database "
            f"{alias!r}, where DATABASE_ROUTERS allow no table for {', '.join(missing)}.",
            hint=f"Let allow_migrate({alias!r}, 'signal_dispatch') be true, and migrate.",
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
                hint=f'Set {path}["OPTIONS"]["transaction_mode"] = "IMMEDIATE".',
            )


def _reason_against(dispatch: ModelDispatch[Any]) -> str:
    options = dispatch.model._meta
    if options.abstract:
        return "is abstract and has no table"
    if not options.managed:
        return "is unmanaged: its table is not Django's"
    if options.swapped:
        return f"is swapped for {options.swapped}"
    if dispatch.model in _OUTBOX:
        return "belongs to the outbox: each call would lead to another one"
    return ""
