"""Write the UPDATE that marks a batch of deliveries."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from django.db import connections

from signal_dispatch import masking
from signal_dispatch.clocks import now_sql
from signal_dispatch.insertion import quoted_table
from signal_dispatch.models import Delivery, State, storable

if TYPE_CHECKING:
    from signal_dispatch.settling import Settlement

#: A value as SQL has it, and its parameters.
_Value: TypeAlias = tuple[str, tuple[Any, ...]]


def mark_statement(settlements: Sequence["Settlement"], using: str) -> tuple[str, Sequence[Any]]:
    """Return the UPDATE that writes what became of deliveries, and its parameters.

    It passes over those whose lease somebody else has by now, and over finished ones.
    """
    connection = connections[using]
    now, null = (now_sql(connection), ()), ("NULL", ())
    # None names another column that is written here, because MySQL would read the new value.
    columns: dict[str, list[_Value]] = {
        "state": [_given(s.state) for s in settlements],
        "available_at": [
            null if s.finished else (now_sql(connection, max(0.0, s.delay)), ())
            for s in settlements
        ],
        "not_before": [
            (now_sql(connection, s.after), ()) if s.after > 0 else null for s in settlements
        ],
        "retried": [_given(s.retried) for s in settlements],
        "finished_at": [now if s.finished else null for s in settlements],
        "error_class": [_given(s.error_class) for s in settlements],
        "reason": [_given(storable(s.reason)[:500]) for s in settlements],
        "last_status": [_given(_last(s, "status_code")) for s in settlements],
        "last_duration_ms": [_given(_last(s, "duration_ms")) for s in settlements],
        "attempts": [_given(s.attempts) for s in settlements],
        "handler_tries": [_given(s.handler_tries) for s in settlements],
    }
    ids = [s.delivery.pk for s in settlements]
    assignments: list[str] = ["held_by = ''"]
    parameters: list[Any] = []
    for column, values in columns.items():
        sql, given = _of_each(ids, values, otherwise=column)
        assignments.append(f"{column} = {sql}")
        parameters += given
    if masked := _masked_bodies(settlements, connection):
        bodies = [_given(body) for body in masked.values()]
        sql, given = _of_each(list(masked), bodies, otherwise="body", all_of_them=False)
        assignments.append(f"body = {sql}")
        parameters += given
    epoch, epochs = _of_each(ids, [_given(s.delivery.epoch) for s in settlements], otherwise="-1")
    # Nothing that is finished is opened again, by whoever did not hear of its own commit.
    fence = f"id IN ({', '.join(['%s'] * len(ids))}) AND state = 'pending' AND epoch = {epoch}"
    sql = f"UPDATE {quoted_table(using)} SET {', '.join(assignments)} WHERE {fence}"
    return sql, [*parameters, *ids, *epochs]


def _given(value: Any) -> _Value:
    return "%s", (value,)


def _of_each(
    ids: Sequence[int], values: Sequence[_Value], *, otherwise: str, all_of_them: bool = True
) -> _Value:
    """Write the value that all have, or else a CASE over the ids.

    That ends in a column, so that PostgreSQL knows the type of a lone NULL.
    """
    if all_of_them and all(value == values[0] for value in values):
        return values[0]
    branches = " ".join(f"WHEN %s THEN {sql}" for sql, _given in values)
    parameters = [
        each for pk, (_sql, given) in zip(ids, values, strict=True) for each in (pk, *given)
    ]
    return f"CASE id {branches} ELSE {otherwise} END", tuple(parameters)


def _masked_bodies(settlements: Sequence["Settlement"], connection: Any) -> dict[int, Any]:
    """Return what is kept of bodies, by id. What a person may send again stays as it is."""
    for s in settlements:
        if s.state == State.DELIVERED or s.successor is not None:
            s.masked = masking.masked_body(s.delivery)
    column = Delivery._meta.get_field("body")
    return {
        s.delivery.pk: column.get_db_prep_save(s.masked, connection)
        for s in settlements
        if s.masked is not None
    }


def _last(settlement: "Settlement", name: str) -> int | None:
    if settlement.attempt is not None:
        value: int | None = getattr(settlement.attempt, name)
        return value
    delivery = settlement.delivery
    return delivery.last_status if name == "status_code" else delivery.last_duration_ms
