"""The one statement that records a delivery: it looks, decides, and writes."""

from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CharField, PositiveIntegerField, PositiveSmallIntegerField, TextField

from signal_dispatch.clocks import now_sql
from signal_dispatch.models import UNFINISHED, Delivery, EndpointState, State

#: The epoch of a row that was leased when it was recorded.
FIRST_EPOCH: Final = 1

# What the statement decides, or says without being given: each value that need not be sent to the
# database is time of a save.
_DECIDED = (
    "id",
    "state",
    "available_at",
    "not_before",
    "held_by",
    "epoch",
    "created_at",
    "finished_at",
)
#: What no delivery has had before it is recorded.
_UNTOUCHED = {
    "attempts": "0",
    "retried": "FALSE",
    "forwarded_after": "NULL",
    "handler_tries": "0",
    "replaced_by": "NULL",
    "last_status": "NULL",
    "last_duration_ms": "NULL",
}
#: What only a delivery has that will not be made.
_REASONS = ("error_class", "reason")
GIVEN = tuple(
    f for f in Delivery._meta.concrete_fields if f.name not in (*_DECIDED, *_UNTOUCHED, *_REASONS)
)
# Values of these types are written as they are, on every database: to ask the fields takes longer.
_PLAIN = {CharField: str, TextField: str, PositiveIntegerField: int, PositiveSmallIntegerField: int}
_COLUMNS = tuple((f, _PLAIN.get(type(f))) for f in GIVEN)
_values = attrgetter(*(f.attname for f in GIVEN))


def written(delivery: Delivery, connection: BaseDatabaseWrapper) -> list[Any]:
    """Return what the statement is given to write: ``GIVEN``, and why it will not be made."""
    given = [
        value
        if value is None or type(value) is plain
        else field.get_db_prep_save(value, connection)
        for value, (field, plain) in zip(_values(delivery), _COLUMNS, strict=True)
    ]
    if delivery.state not in UNFINISHED:
        given += [delivery.error_class, delivery.reason]
    return given


@lru_cache(maxsize=256)
def insert_statement(
    using: str,
    seconds: float,
    *,
    look: bool,
    delayed: bool,
    leased: bool,
    gated: bool,
    state: State,
) -> str:
    """Return the SQL: due, or ``leased``, for so many seconds.

    Its parameters are what ``written()`` returns, the holder if ``leased``, the lane if it is to
    ``look`` into that, and environment and endpoint where it is ``gated``: looks whether these are
    barred. ``delayed``: no attempt is made before it is due. Returns id, state and epoch where the
    database can.
    """
    connection = connections[using]
    now, due = now_sql(connection), now_sql(connection, seconds)
    looks = _looks(using, look=look, gated=gated)
    # MySQL takes the outbox itself in no other place than a derived table. Without its limit
    # PostgreSQL copies each look to wherever it is named: that doubles the time of planning.
    source = f" FROM (SELECT {', '.join(looks.values())} LIMIT 1) AS looked" if looks else ""
    # Whoever finds the lane busy, or the endpoint barred, holds no lease.
    held = f"CASE WHEN {' OR '.join(looks)} THEN {{}} ELSE {{}} END" if looks else "{1}"
    available = due if state == State.PENDING else "NULL"
    if gated:
        available = f"CASE WHEN barred THEN {now} ELSE {due} END"
    values = dict.fromkeys((f.name for f in GIVEN), "%s")
    values |= dict.fromkeys(_REASONS, "''" if state in UNFINISHED else "%s") | _UNTOUCHED
    values |= {
        "state": f"CASE WHEN busy THEN 'waiting' ELSE '{state}' END" if look else f"'{state}'",
        "available_at": f"CASE WHEN busy THEN NULL ELSE {available} END" if look else available,
        "held_by": held.format("''", "%s" if leased else "''"),
        "epoch": held.format("0", str(FIRST_EPOCH if leased else 0)),
        "not_before": due if delayed else "NULL",
        "created_at": now,
        "finished_at": "NULL" if state in UNFINISHED else now,
    }
    columns = ", ".join(_quoted_column(connection, name) for name in values)
    statement = f"INSERT INTO {quoted_table(using)} ({columns}) SELECT {', '.join(values.values())}"
    statement += source
    if connection.features.can_return_columns_from_insert:
        statement += " RETURNING id, state, epoch"
    return statement


def _quoted_column(connection: BaseDatabaseWrapper, name: str) -> str:
    field: Any = Delivery._meta.get_field(name)
    return connection.ops.quote_name(field.column)


def _looks(using: str, *, look: bool, gated: bool) -> dict[str, str]:
    """Return by its name what the INSERT looks at before it decides."""
    looks = {}
    if look:
        looks["busy"] = (
            f"EXISTS (SELECT 1 FROM {quoted_table(using)}"
            f" WHERE state IN ('pending', 'waiting') AND lane = %s) AS busy"
        )
    if gated:  # whoever pauses an endpoint is heard by every save that begins after that commit
        states = connections[using].ops.quote_name(EndpointState._meta.db_table)
        looks["barred"] = (
            f"EXISTS (SELECT 1 FROM {states} WHERE environment = %s AND endpoint = %s"
            f" AND (open_until IS NOT NULL OR paused_at IS NOT NULL)) AS barred"
        )
    return looks


def quoted_table(using: str) -> str:
    """Return the outbox's table as it stands in SQL."""
    return connections[using].ops.quote_name(Delivery._meta.db_table)
