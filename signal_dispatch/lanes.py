"""Keep the deliveries of one dispatch for one object in their order."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from django.db import connections

from signal_dispatch.clocks import SecondsFromNow, now_sql
from signal_dispatch.databases import own_transaction
from signal_dispatch.insertion import quoted_table
from signal_dispatch.keys import key_as_text
from signal_dispatch.models import Delivery, DeliveryQuerySet, State
from signal_dispatch.outbox import Lease

#: Seconds that whoever can't come back waits for a row that somebody has locked, and between two
#: tries.
RELEASE_SECONDS, PAUSE_SECONDS = 1.0, 0.05


def lane_of(environment: str, endpoint: str, dispatch: str, model: str, pk: Any) -> str:
    """Return the lane's name: a digest, because the parts are longer than an index takes."""
    parts = "\x1f".join([environment, endpoint, dispatch, model, key_as_text(pk)])
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Released:
    """What came of lanes that were looked at.

    ``taken`` are now due, or held where there was a lease. ``scheduled`` says that others have
    to be waited for; ``blocked`` are lanes whose first is being replaced by somebody just now.
    """

    taken: Sequence[Delivery] = ()
    scheduled: bool = False
    blocked: frozenset[str] = frozenset()


def release(using: str, lanes: Collection[str], lease: Lease | None) -> Released:
    """Move the first WAITING delivery of each idle lane to PENDING.

    Runs after the commit that settled the lane's head, and again after the commit that recorded a
    WAITING row: each side can miss the other's row only while that is not committed, so one of
    the two sees it. With a lease they belong to its holder; without, they are due at once, or
    when their delay is over.
    """
    first = first_of_each(using, list(lanes))
    if not first:
        return Released()
    skip = connections[using].features.has_select_for_update_skip_locked
    with own_transaction(using):
        # Whoever replaces one of them may keep its transaction open for long.
        waiting = Delivery.objects.using(using).filter(pk__in=first.values(), state=State.WAITING)
        rows = waiting.select_for_update(skip_locked=skip)
        found = list(rows.annotate(left=SecondsFromNow("not_before")).order_by("id"))
        later = [d for d in found if (d.left or 0) > 0]  # type: ignore[attr-defined]
        ready = [d for d in found if d not in later]
        scheduled = bool(_promote(using, later, "not_before", None))
        due = now_sql(connections[using], lease.seconds if lease else 0)
        taken = _promote(using, ready, due, lease)
    blocked = first.keys() - {d.lane for d in found}
    return Released(taken, scheduled, frozenset(blocked))


def release_at_last(using: str, lanes: Collection[str], lease: Lease | None) -> Released:
    """Release as ``release()`` does, for whoever settled and will not come back to look again.

    The look of somebody who recorded a row has that row locked for a moment, and may have seen
    the lane's head as it was before the mark. Passed over now, the row would wait for the repair.
    """
    until = monotonic() + RELEASE_SECONDS
    released = release(using, lanes, lease)
    taken, scheduled = [*released.taken], released.scheduled
    while released.blocked and monotonic() < until:
        sleep(PAUSE_SECONDS)
        released = release(using, released.blocked, lease)
        taken += released.taken
        scheduled |= released.scheduled
    return Released(taken, scheduled, released.blocked)


def idle_lanes(rows: DeliveryQuerySet, limit: int) -> list[str]:
    """Return lanes among the rows that wait behind nothing: their releaser died on the way.

    Looks at every WAITING row, so it is asked every few minutes only.
    """
    busy = rows.filter(state=State.PENDING).exclude(lane="").values("lane")
    waiting = rows.filter(state=State.WAITING).exclude(lane__in=busy)
    return list(waiting.values_list("lane", flat=True).distinct()[:limit])


def first_of_each(using: str, lanes: Sequence[str]) -> dict[str, int]:
    """Return which is the first that waits in each lane. Asked after each settled delivery."""
    if not lanes:
        return {}
    statement = (
        f"SELECT lane, MIN(id) FROM {quoted_table(using)} WHERE state = 'waiting'"
        f" AND lane IN ({', '.join(['%s'] * len(lanes))}) GROUP BY lane"
    )
    with connections[using].cursor() as cursor:
        cursor.execute(statement, lanes)
        return dict(cursor.fetchall())


def _promote(
    using: str, first: Sequence[Delivery], due: str, lease: Lease | None
) -> Sequence[Delivery]:
    """Make those PENDING whose lane is idle, due then. Their rows are locked."""
    if not first:
        return []
    table = quoted_table(using)
    holder, raised = (lease.holder, 1) if lease else ("", 0)
    ids = [d.pk for d in first]
    numbers = ", ".join(["%s"] * len(ids))
    # A lane with a PENDING row is not idle, whoever put it there. DISTINCT keeps MySQL from
    # folding the inner query into an UPDATE of the same table, which it refuses.
    statement = (
        f"UPDATE {table} SET state = 'pending', held_by = %s, epoch = epoch + %s,"
        f" available_at = {due} WHERE id IN ({numbers}) AND state = 'waiting' AND lane NOT IN"
        f" (SELECT lane FROM (SELECT DISTINCT lane FROM {table}"
        f" WHERE state = 'pending' AND lane IN ({numbers})) AS busy)"
    )
    with connections[using].cursor() as cursor:
        cursor.execute(statement, [holder, raised, *ids, *(d.lane for d in first)])
        if cursor.rowcount < len(first):
            rows = Delivery.objects.using(using).filter(pk__in=ids, state=State.PENDING)
            return list(rows.order_by("id"))
    for delivery in first:
        delivery.state, delivery.held_by = State.PENDING, holder
        delivery.epoch += raised
    return first
