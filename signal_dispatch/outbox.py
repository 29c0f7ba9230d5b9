"""Write deliveries into the outbox."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import connections
from django.utils import timezone

from signal_dispatch import crashpoints
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.databases import reads_old_snapshots
from signal_dispatch.insertion import insert_statement, quoted_table, written
from signal_dispatch.models import UNFINISHED, Delivery, EndpointState, State


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may send a delivery, and for how many seconds nobody else may."""

    holder: str
    seconds: float


def record(
    delivery: Delivery,
    using: str,
    *,
    lease: Lease | None,
    delay: float = 0.0,
    look: bool = True,
    alone: bool = False,
) -> None:
    """Write a new delivery with one INSERT, on the transaction that is open.

    The statement decides: WAITING if the lane is busy; else leased, if there is a lease, no
    ``delay`` (seconds), and nothing keeps the endpoint from being called; else PENDING and due
    after the delay. ``look=False`` spares the look into the lane where nothing can be. ``alone``
    says that the transaction is the package's own. A delivery that is finished already is written
    as it is.
    """
    connection = connections[using]
    look = look and bool(delivery.lane) and delivery.state == State.PENDING
    asks_before = reads_old_snapshots(connection)
    if look and asks_before and delivery.lane in _busy_lanes([delivery], using, alone=alone):
        delivery.state = State.WAITING
    leased = lease is not None and delay <= 0 and delivery.state == State.PENDING
    if leased and asks_before:
        leased = not _is_barred(delivery, using)
    seconds = lease.seconds if leased and lease else delay
    state, delayed = State(delivery.state), delay > 0
    look, gated = look and not asks_before, leased and not asks_before
    statement = insert_statement(
        using, seconds, look=look, delayed=delayed, leased=leased, gated=gated, state=state
    )
    holder = lease.holder if leased and lease else ""
    given = written(delivery, connection)
    given += [*([holder] if leased else []), *([delivery.lane] if look else [])]
    given += [delivery.environment, delivery.endpoint] if gated else []
    with connection.cursor() as cursor:
        cursor.execute(statement, given)
        if connection.features.can_return_columns_from_insert:
            delivery.pk, delivery.state, delivery.epoch = cursor.fetchone()
        else:
            delivery.pk = cursor.lastrowid
            delivery.epoch = int(leased)
            if look or gated:
                cursor.execute(_STATE_OF.format(table=quoted_table(using)), [delivery.pk])
                delivery.state, delivery.epoch = cursor.fetchone()
    delivery.held_by = holder if delivery.epoch else ""
    delivery.created_at = timezone.now()  # near enough, for hooks that are called with it
    delivery._state.db, delivery._state.adding = using, False
    crashpoints.reached("before_commit")


_STATE_OF = "SELECT state, epoch FROM {table} WHERE id = %s"


def record_many(
    deliveries: Sequence[Delivery], using: str, *, delay: float = 0.0, alone: bool = False
) -> None:
    """Write many new deliveries of different lanes, due after the delay (seconds) for anybody.

    Their objects' rows are locked already. ``alone`` as in ``record()``.
    """
    busy = _busy_lanes(deliveries, using, alone=alone)
    for delivery in deliveries:
        delivery.created_at = DatabaseNow()
        delivery.not_before = DatabaseNow(delay) if delay > 0 else None
        if delivery.state not in UNFINISHED:
            delivery.finished_at = DatabaseNow()
        elif delivery.lane in busy:
            delivery.state = State.WAITING
        else:
            delivery.available_at = DatabaseNow(delay)
    _insert_many(deliveries, using)
    for delivery in deliveries:  # receivers and hooks are no place for SQL
        delivery.created_at = timezone.now()
        delivery.available_at = delivery.not_before = delivery.finished_at = None
    crashpoints.reached("before_commit")


def _busy_lanes(deliveries: Iterable[Delivery], using: str, *, alone: bool) -> set[str]:
    """Return the lanes that have something unfinished, or may have.

    MariaDB and MySQL under REPEATABLE READ show a site's transaction the rows as they stood when
    it first read something, and a look that shows more keeps other savers out of the lane's
    neighbours, up to a deadlock. So there a new delivery waits, and whoever commits releases it.
    """
    lanes = {d.lane for d in deliveries if d.lane}
    if not alone and reads_old_snapshots(connections[using]):
        return lanes
    unfinished = Delivery.objects.using(using).unfinished().filter(lane__in=lanes)
    return set(unfinished.values_list("lane", flat=True))


def _is_barred(delivery: Delivery, using: str) -> bool:
    """Say whether the endpoint must not be called, where the INSERT can't look by itself.

    MariaDB and MySQL under REPEATABLE READ would lock what it looks at for the whole transaction.
    """
    states = EndpointState.objects.using(using).barred()
    return states.filter(environment=delivery.environment, endpoint=delivery.endpoint).exists()


def _insert_many(deliveries: Sequence[Delivery], using: str) -> None:
    rows = Delivery.objects.using(using)
    rows.bulk_create(deliveries)
    if connections[using].features.can_return_rows_from_bulk_insert:
        return
    # MySQL tells no ids: the index of the uids finds them.
    new = rows.filter(uid__in=[d.uid for d in deliveries])
    ids = dict(new.values_list("uid", "pk"))
    for delivery in deliveries:
        delivery.pk = ids[delivery.uid]


def refresh(delivery: Delivery, using: str) -> bool:
    """Rewrite what a delivery of the open transaction carries; False where it is gone.

    A savepoint may have taken the row back, and SQLite gives out its number again: hence the uid.
    """
    rows = Delivery.objects.using(using).filter(pk=delivery.pk, uid=delivery.uid)
    written = ["event", "method", "path", "headers", "body", "state", "reason"]
    values = {name: getattr(delivery, name) for name in written}
    if delivery.state not in UNFINISHED:  # there is nothing left to be sent
        values |= {"available_at": None, "held_by": "", "finished_at": DatabaseNow()}
    return bool(rows.unfinished().update(**values))


def withdraw(delivery: Delivery, using: str) -> bool:
    """Delete a delivery of the open transaction; False where it is gone already."""
    rows = Delivery.objects.using(using).filter(pk=delivery.pk, uid=delivery.uid)
    return bool(rows.delete()[0])
