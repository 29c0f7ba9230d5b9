"""What differs from one database to the next: how a transaction begins, and who may write where.

And how long our own threads keep a connection.
"""

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, QuerySet

from signal_dispatch import patience

#: Seconds between two looks at the age of a working thread's connections.
JUDGE_SECONDS: Final = 5.0

_judged = threading.local()


def refresh_connections() -> None:
    """Close this thread's connections that are broken or too old; for threads of our own.

    ``CONN_MAX_AGE`` is meant for requests, and 0 where nobody sets it: a thread at work that asked
    for their age before each piece of work would connect anew for each. One that came from a pool
    goes back to it each time, because requests wait for it.
    """
    now = monotonic()
    due = now >= getattr(_judged, "until", now)
    if due:
        _judged.until = now + JUDGE_SECONDS
    for connection in connections.all(initialized_only=True):
        pooled = connection.settings_dict["OPTIONS"].get("pool")
        if due or pooled or connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()


@contextmanager
def own_transaction(using: str) -> Iterator[None]:
    """Open a transaction of the package's own, or a savepoint inside of one that is open.

    On SQLite it begins IMMEDIATE whatever the settings say: one that reads first and then writes
    fails at once with "database is locked" when another connection wrote in between, and no
    timeout helps (Django forum 26994).
    """
    connection = connections[using]
    atomic = transaction.atomic(using=using)
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        with atomic:
            yield
        return
    with patience.turn(connection), _beginning_immediate(connection):
        atomic.__enter__()
    try:
        yield
    except BaseException as error:
        atomic.__exit__(type(error), error, error.__traceback__)
        raise
    else:
        atomic.__exit__(None, None, None)


@contextmanager
def joined_transaction(using: str) -> Iterator[bool]:
    """Make sure that a transaction is open, and tell whether it is the package's own.

    Inside of somebody's transaction, or where autocommit is off, nothing is opened.
    """
    connection = connections[using]
    if connection.in_atomic_block or not connection.get_autocommit():
        yield False
        return
    with own_transaction(using):
        yield True


@contextmanager
def _beginning_immediate(connection: Any) -> Iterator[None]:
    # The mode is read anew at each BEGIN from this (undocumented) attribute of the SQLite
    # connection; tests/test_databases.py notices if Django stops doing so.
    connection.ensure_connection()
    configured = connection.transaction_mode
    if configured != "EXCLUSIVE":
        connection.transaction_mode = "IMMEDIATE"
    try:
        yield
    finally:
        connection.transaction_mode = configured


def reads_old_snapshots(connection: BaseDatabaseWrapper) -> bool:
    """Say whether a transaction may see a row's lane as it stood before the row's lock was had.

    So on MariaDB and MySQL where ``isolation_level`` was raised above Django's READ COMMITTED;
    PostgreSQL refuses the write of a row that has changed since.
    """
    level = getattr(connection, "isolation_level", None)
    return connection.vendor == "mysql" and level not in ("read committed", "read uncommitted")


def outbox_aliases(outbox: type[Model], models: Iterable[type[Model]] = ()) -> list[str]:
    """List the aliases with an outbox to send from, where some of these models may be written.

    Not a replica: what is due there may be sent and settled already, and a claim would be refused
    or, worse, be lost. It is told by its ``TEST["MIRROR"]``, or by routers that never write there.
    """
    written = {_writer_of(model) for model in models}
    return [
        alias
        for alias in connections
        if router.allow_migrate_model(alias, outbox)
        and not connections.settings[alias]["TEST"]["MIRROR"]
        and (alias in written or _stays(outbox(), alias))
    ]


def _stays(row: Model, alias: str) -> bool:
    """Say whether routers let a row of this alias be written where it is."""
    row._state.db = alias
    return _writer_of(type(row), instance=row) in (alias, None)


def _writer_of(model: type[Model], **hints: Any) -> str | None:
    try:
        return router.db_for_write(model, **hints)
    except Exception:  # noqa: BLE001 - a router that wants a tenant, say: it does not know
        return None


def alias_for_writing(objects: QuerySet[Any]) -> str:
    """Return the alias to write on for a queryset.

    One that no ``using()`` was called on names the alias for reading, perhaps a replica.
    """
    reading, writing = router.db_for_read(objects.model), router.db_for_write(objects.model)
    return writing if objects.db == reading else objects.db


def is_in_test_case(using: str) -> bool:
    """Say whether a test case's own transaction is open, which is never committed."""
    # Private, as in merging.py, and guarded by the same test.
    return any(block._from_testcase for block in connections[using].atomic_blocks)  # type: ignore[attr-defined]  # noqa: SLF001


def is_refused_by_test(error: Exception) -> bool:
    """Say whether a test case refused the database: then what is there is nobody's to look at."""
    module = sys.modules.get("django.test.testcases")
    return module is not None and isinstance(error, module.DatabaseOperationForbidden)


def row_lock(using: str) -> dict[str, Any] | None:
    """Return the arguments of ``select_for_update`` for an object's row; None on SQLite.

    PostgreSQL's plain ``FOR UPDATE`` would block inserts of rows that refer to the object.
    """
    features = connections[using].features
    if not features.has_select_for_update:
        return None
    return {"no_key": True} if features.has_select_for_no_key_update else {}


def take_write_lock(model: type[Model], using: str) -> None:
    """Let SQLite's open transaction become the writer, as a lock of a row does elsewhere.

    One that reads first and writes then fails with "database is locked" if another wrote in
    between, whatever the timeout. A write waits; this one changes no row.
    """
    connection: Any = connections[using]
    if connection.vendor != "sqlite" or connection.transaction_mode in ("IMMEDIATE", "EXCLUSIVE"):
        return
    table = connection.ops.quote_name(model._meta.db_table)
    column = connection.ops.quote_name(model._meta.pk_fields[0].column)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {column} = {column} WHERE 0")  # noqa: S608 - names
