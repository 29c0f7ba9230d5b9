"""Keep the deliveries of one dispatch for one object in their order."""

import hashlib
from collections.abc import Collection
from typing import Any

from django.db import connections
from django.db.models import Min

from signal_dispatch.databases import now_sql
from signal_dispatch.models import Delivery, DeliveryQuerySet, State, key_as_text
from signal_dispatch.outbox import Lease


def lane_of(environment: str, endpoint: str, dispatch: str, model: str, pk: Any) -> str:
    """Return the lane's name: a digest, because the parts are longer than an index takes."""
    parts = "\x1f".join([environment, endpoint, dispatch, model, key_as_text(pk)])
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def release(using: str, lanes: Collection[str], lease: Lease | None) -> list[Delivery]:
    """Move the first WAITING delivery of each idle lane to PENDING, and return those taken.

    Runs after the commit that settled the lane's head, and again after the commit that recorded a
    WAITING row: each side can miss the other's row only while that is not committed, so one of
    the two sees it. With a lease they belong to its holder; without, they are due at once.
    """
    waiting = Delivery.objects.using(using).filter(state=State.WAITING, lane__in=set(lanes))
    first = list(waiting.values("lane").order_by().annotate(first=Min("id")))
    if not first:
        return []
    ids = sorted(row["first"] for row in first)
    if not _promote(using, ids, [row["lane"] for row in first], lease):
        return []
    if lease is None:
        return list(Delivery.objects.using(using).filter(pk__in=ids, state=State.PENDING))
    return list(Delivery.objects.using(using).held(lease.holder, ids).order_by("id"))


def idle_lanes(rows: DeliveryQuerySet, limit: int) -> list[str]:
    """Return lanes among the rows that wait behind nothing: their releaser died on the way.

    Looks at every WAITING row, so it is asked every few minutes only.
    """
    busy = rows.filter(state=State.PENDING).exclude(lane="").values("lane")
    waiting = rows.filter(state=State.WAITING).exclude(lane__in=busy)
    return list(waiting.values_list("lane", flat=True).distinct()[:limit])


def _promote(using: str, ids: list[int], lanes: list[str], lease: Lease | None) -> int:
    connection = connections[using]
    table = connection.ops.quote_name(Delivery._meta.db_table)
    numbers, names = (", ".join(["%s"] * len(values)) for values in (ids, lanes))
    # A lane with a PENDING row is not idle, whoever put it there. DISTINCT keeps MySQL from
    # folding the inner query into an UPDATE of the same table, which it refuses.
    statement = (
        f"UPDATE {table} SET state = 'pending', held_by = %s, epoch = epoch + %s,"
        f" available_at = {now_sql(connection, lease.seconds if lease else 0)}"
        f" WHERE id IN ({numbers}) AND state = 'waiting' AND lane NOT IN"
        f" (SELECT lane FROM (SELECT DISTINCT lane FROM {table}"
        f" WHERE state = 'pending' AND lane IN ({names})) AS busy)"
    )
    parameters: list[Any] = [lease.holder if lease else "", int(lease is not None), *ids, *lanes]
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)
