"""Write deliveries into the outbox, and what became of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.db import connections
from django.utils import timezone

from signal_dispatch.databases import DatabaseNow, now_sql, own_transaction
from signal_dispatch.exceptions import LeaseLost
from signal_dispatch.models import UNFINISHED, Attempt, Delivery, RemoteObject, State


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may send a delivery, and for how many seconds nobody else may."""

    holder: str
    seconds: float


@dataclass(slots=True)
class Settlement:
    """What an attempt led to, ready to be written. ``delay`` in seconds, for PENDING."""

    delivery: Delivery
    state: State
    attempt: Attempt | None = None
    delay: float = 0.0
    error_class: str = ""
    reason: str = ""
    handler_tried: bool = False
    recorded: bool = False

    @property
    def finished(self) -> bool:
        """Whether the delivery's lane can go on."""
        return self.state not in UNFINISHED

    def apply(self) -> None:
        """Let the delivery in memory show what was written."""
        delivery, attempt = self.delivery, self.attempt
        delivery.state, delivery.held_by = self.state, ""
        now = timezone.now()  # near enough to the database's clock
        delivery.finished_at = now if self.finished else None
        delivery.available_at = None if self.finished else now + timedelta(seconds=self.delay)
        delivery.error_class, delivery.reason = self.error_class, self.reason[:500]
        delivery.handler_tries += int(self.handler_tried)
        if attempt is not None:
            delivery.attempts = attempt.number
            delivery.last_status = attempt.status_code
            delivery.last_duration_ms = attempt.duration_ms


# Recording. Everything in this INSERT that is not decided by the statement itself.
_DECIDED = ("id", "state", "available_at", "held_by", "epoch", "created_at", "finished_at")
_GIVEN = tuple(f for f in Delivery._meta.concrete_fields if f.name not in _DECIDED)


def record(
    delivery: Delivery, using: str, *, lease: Lease | None, delay: float = 0.0, look: bool = True
) -> None:
    """Write a new delivery with one INSERT, on the transaction that is open.

    The statement decides: WAITING if the lane is busy; else leased, if there is a lease and no
    ``delay`` (seconds); else PENDING and due after the delay. ``look=False`` spares the look into
    the lane where nothing can be. A delivery that is FAILED already is written as it is.
    """
    connection = connections[using]
    leased = lease is not None and delay <= 0 and delivery.state == State.PENDING
    seconds = lease.seconds if leased and lease else delay
    holder = lease.holder if leased and lease else ""
    look = look and bool(delivery.lane) and delivery.state == State.PENDING
    statement = _insert_statement(using, seconds, look, delivery.state == State.FAILED)
    given = [f.get_db_prep_save(getattr(delivery, f.attname), connection) for f in _GIVEN]
    decided: list[Any] = [holder, int(leased), *([delivery.lane] if look else [])]
    with connection.cursor() as cursor:
        cursor.execute(statement, [*given, delivery.state, *decided])
        if connection.features.can_return_columns_from_insert:
            delivery.pk, delivery.state = cursor.fetchone()
        else:
            delivery.pk = cursor.lastrowid
            if look:
                cursor.execute(_STATE_OF.format(table=_table(using)), [delivery.pk])
                (delivery.state,) = cursor.fetchone()
    if delivery.state == State.PENDING:
        delivery.held_by, delivery.epoch = holder, int(leased)
    delivery.created_at = timezone.now()  # near enough, for hooks that are called with it
    delivery._state.db, delivery._state.adding = using, False


_STATE_OF = "SELECT state FROM {table} WHERE id = %s"


@lru_cache(maxsize=256)
def _insert_statement(using: str, seconds: float, look: bool, failed: bool) -> str:  # noqa: FBT001 - a cache key
    connection = connections[using]
    quote = connection.ops.quote_name
    columns = [f.column for f in _GIVEN]
    columns += ["state", "available_at", "held_by", "epoch", "created_at", "finished_at"]
    now, due = now_sql(connection), now_sql(connection, seconds)
    values = ["%s"] * len(_GIVEN)
    if look:
        # The derived table is read once, and MySQL takes the outbox itself in no other place.
        values += [
            "CASE WHEN busy THEN 'waiting' ELSE %s END",
            f"CASE WHEN busy THEN NULL ELSE {due} END",
            "CASE WHEN busy THEN '' ELSE %s END",
            "CASE WHEN busy THEN 0 ELSE %s END",
            now,
            "NULL",
        ]
        source = (
            f" FROM (SELECT EXISTS (SELECT 1 FROM {_table(using)}"
            f" WHERE state IN ('pending', 'waiting') AND lane = %s) AS busy) AS looked"
        )
    else:
        values += ["%s", "NULL" if failed else due, "%s", "%s", now, now if failed else "NULL"]
        source = ""
    names = ", ".join(quote(column) for column in columns if column)
    statement = f"INSERT INTO {_table(using)} ({names}) SELECT {', '.join(values)}{source}"
    if connection.features.can_return_columns_from_insert:
        statement += " RETURNING id, state"
    return statement


def record_many(deliveries: Sequence[Delivery], using: str) -> None:
    """Write many new deliveries of different lanes, due at once; their objects are locked."""
    lanes = {d.lane for d in deliveries if d.lane and d.state == State.PENDING}
    unfinished = Delivery.objects.using(using).unfinished()
    busy = set(unfinished.filter(lane__in=lanes).values_list("lane", flat=True))
    for delivery in deliveries:
        delivery.created_at = DatabaseNow()
        if delivery.state == State.FAILED:
            delivery.finished_at = DatabaseNow()
        elif delivery.lane in busy:
            delivery.state = State.WAITING
        else:
            delivery.available_at = DatabaseNow()
    Delivery.objects.using(using).bulk_create(deliveries)
    for delivery in deliveries:  # receivers and hooks are no place for SQL
        delivery.created_at = timezone.now()
        delivery.available_at = delivery.finished_at = None


def refresh(delivery: Delivery, using: str) -> bool:
    """Rewrite what a delivery of the open transaction carries; False where it is gone.

    A savepoint may have taken the row back, and SQLite gives out its number again: hence the uid.
    """
    rows = Delivery.objects.using(using).filter(pk=delivery.pk, uid=delivery.uid)
    return bool(
        rows.unfinished().update(
            event=delivery.event,
            method=delivery.method,
            path=delivery.path,
            headers=delivery.headers,
            body=delivery.body,
        )
    )


def withdraw(delivery: Delivery, using: str) -> bool:
    """Delete a delivery of the open transaction; False where it is gone already."""
    rows = Delivery.objects.using(using).filter(pk=delivery.pk, uid=delivery.uid)
    return bool(rows.delete()[0])


# Settling.


def settle(settlements: Sequence[Settlement], using: str) -> list[Settlement]:
    """Write what became of deliveries in one short transaction, and return what was accepted.

    One whose lease somebody else has by now is left out: only its attempt is put on record.
    """
    with own_transaction(using):
        accepted, existing = _mark(settlements, using)
        attempts = [
            _insertable(s.attempt) for s in settlements if s.attempt and s.delivery.pk in existing
        ]
        Attempt.objects.using(using).bulk_create(attempts)
    return accepted


def settle_with(settlement: Settlement, using: str, work: Callable[[], None]) -> None:
    """Run the work and mark the delivery in one transaction, the mark last.

    The other order deadlocks with a saver, who takes the object's row before the outbox's.
    Raises ``LeaseLost``, and undoes the work, where somebody else has the lease by now.
    """
    with own_transaction(using):
        work()
        if settlement.attempt is not None:
            _insertable(settlement.attempt).save(using=using, force_insert=True)
        accepted, _existing = _mark([settlement], using)
        if not accepted:
            raise LeaseLost(f"Delivery {settlement.delivery.pk} is held by another process now.")


def _insertable(attempt: Attempt) -> Attempt:
    """Return the attempt without a number that a rolled-back transaction gave it."""
    attempt.pk = None
    attempt.error = storable(attempt.error)
    return attempt


def storable(text: str) -> str:
    """Replace what no database takes: NUL, and surrogates that JSON may hold alone."""
    return text.encode(errors="replace").decode().replace("\x00", "\ufffd")


def _mark(settlements: Sequence[Settlement], using: str) -> tuple[list[Settlement], set[int]]:
    ordered = sorted(settlements, key=lambda s: s.delivery.pk)
    ids = [s.delivery.pk for s in ordered]
    sql, parameters = _mark_statement(ordered, using)
    with connections[using].cursor() as cursor:
        cursor.execute(sql, parameters)
        if cursor.rowcount == len(ids):
            return list(ordered), set(ids)
    epochs = dict(Delivery.objects.using(using).filter(pk__in=ids).values_list("pk", "epoch"))
    accepted = [s for s in ordered if epochs.get(s.delivery.pk) == s.delivery.epoch]
    return accepted, set(epochs)


def _mark_statement(settlements: Sequence[Settlement], using: str) -> tuple[str, list[Any]]:
    connection = connections[using]
    now = now_sql(connection)
    due = ["NULL" if s.finished else now_sql(connection, max(0.0, s.delay)) for s in settlements]
    # Each CASE ends in its own column, so that PostgreSQL knows the type of a lone NULL; none
    # names another column that is written here, because MySQL would read the new value.
    columns: list[tuple[str, list[str], list[Any]]] = [
        ("state", [], [s.state for s in settlements]),
        ("available_at", due, []),
        ("finished_at", [now if s.finished else "NULL" for s in settlements], []),
        ("error_class", [], [s.error_class for s in settlements]),
        ("reason", [], [storable(s.reason)[:500] for s in settlements]),
        ("last_status", [], [_last(s, "status_code") for s in settlements]),
        ("last_duration_ms", [], [_last(s, "duration_ms") for s in settlements]),
        ("attempts", [], [s.delivery.attempts + int(bool(s.attempt)) for s in settlements]),
        ("handler_tries", [], [s.delivery.handler_tries + s.handler_tried for s in settlements]),
    ]
    ids = [s.delivery.pk for s in settlements]
    assignments, parameters = ["held_by = ''"], []
    for column, literals, values in columns:
        branches = []
        for position, pk in enumerate(ids):
            branches.append(f"WHEN %s THEN {literals[position] if literals else '%s'}")
            parameters += [pk] if literals else [pk, values[position]]
        assignments.append(f"{column} = CASE id {' '.join(branches)} ELSE {column} END")
    fence = " OR ".join(["(id = %s AND epoch = %s)"] * len(ids))
    for s in settlements:
        parameters += [s.delivery.pk, s.delivery.epoch]
    sql = f"UPDATE {_table(using)} SET {', '.join(assignments)} WHERE {fence}"
    return sql, parameters


def _last(settlement: Settlement, name: str) -> int | None:
    if settlement.attempt is not None:
        value: int | None = getattr(settlement.attempt, name)
        return value
    delivery = settlement.delivery
    return delivery.last_status if name == "status_code" else delivery.last_duration_ms


def freeze(delivery: Delivery, using: str, **values: Any) -> None:
    """Write what is settled before the first attempt, such as a path with the remote's id.

    Raises ``LeaseLost`` where somebody else has the lease by now.
    """
    rows = Delivery.objects.using(using).filter(pk=delivery.pk, epoch=delivery.epoch)
    if not rows.update(**values):
        raise LeaseLost(f"Delivery {delivery.pk} is held by another process now.")
    for name, value in values.items():
        setattr(delivery, name, value)


# Ids that remotes gave out.


def remote_id(delivery: Delivery, using: str) -> str | None:
    """Return the id that the remote gave to the delivery's object, if it is known."""
    found: str | None = _remote(delivery, using).values_list("remote_id", flat=True).first()
    return found


def keep_remote_id(delivery: Delivery, using: str, value: str) -> None:
    """Keep the remote's id for the delivery's object."""
    RemoteObject.objects.using(using).update_or_create(
        dispatch=delivery.dispatch,
        endpoint=delivery.endpoint,
        model=delivery.model,
        object_pk=delivery.object_pk,
        defaults={"remote_id": value},
    )


def forget_remote_id(delivery: Delivery, using: str) -> None:
    """Forget the remote's id: the object is gone there."""
    _remote(delivery, using).delete()


def _remote(delivery: Delivery, using: str) -> Any:
    return RemoteObject.objects.using(using).filter(
        dispatch=delivery.dispatch,
        endpoint=delivery.endpoint,
        model=delivery.model,
        object_pk=delivery.object_pk,
    )


def kept_answer(delivery: Delivery, using: str) -> Attempt | None:
    """Return the last attempt that brought an answer."""
    attempts: Iterable[Attempt] = Attempt.objects.using(using).filter(
        delivery_id=delivery.pk, status_code__isnull=False
    )
    return max(attempts, key=lambda a: a.number, default=None)


def _table(using: str) -> str:
    return connections[using].ops.quote_name(Delivery._meta.db_table)
