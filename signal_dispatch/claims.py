"""Take deliveries that are due, keep them, give them back."""

import os
import random
import secrets
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import ceil
from typing import Any

from django.db import connections
from django.db.models import F
from django.db.models.expressions import RawSQL

from signal_dispatch import crashpoints, families
from signal_dispatch.clocks import DatabaseNow, SecondsFromNow
from signal_dispatch.conf import settings
from signal_dispatch.databases import own_transaction
from signal_dispatch.insertion import FIRST_EPOCH, quoted_table
from signal_dispatch.models import Delivery, DeliveryQuerySet, State
from signal_dispatch.outbox import Lease
from signal_dispatch.scopes import Kind, Scope

#: How many places in the index are looked at in one statement; SQLite takes 500 parts of a union.
_LOOKS = 200


def claim(
    using: str, lease: Lease, scope: Scope, limit: int, *, due: Sequence[Kind] | None = None
) -> list[Delivery]:
    """Take up to ``limit`` due deliveries, each for nobody else.

    ``due`` tells of what there is some, as ``due_kinds()`` does; it is asked where nothing is
    given. The endpoints' shares are alike, so that one with a pile keeps no other out; within one
    first attempts and retries share alike, and of each the longest due goes first.
    """
    if due is None:
        due = due_kinds(seconds_until_due(using, scope))
    kinds: dict[str, list[Kind]] = {}
    for kind in due:
        kinds.setdefault(kind.endpoint, []).append(kind)
    if len(kinds) > 1 and len(kinds) >= limit:
        chosen = [random.choice(of_one) for of_one in list(kinds.values())[:limit]]  # noqa: S311
        return _claim_first_of_each(using, lease, scope, chosen)
    taken: list[Delivery] = []
    for position, of_one in enumerate(kinds.values()):
        share = ceil((limit - len(taken)) / (len(kinds) - position))
        taken += _claim_share(using, lease, scope, of_one, share)
    return taken


def _claim_first_of_each(
    using: str, lease: Lease, scope: Scope, kinds: Sequence[Kind]
) -> list[Delivery]:
    """Take one delivery of each kind, together: a transaction each would take its time."""
    firsts = [_first(using, scope, *kind, "id") for kind in kinds]
    return claim_ids(using, lease, [pk for (pk,) in _looks(using, firsts)], only_due=True)


def _claim_share(
    using: str, lease: Lease, scope: Scope, kinds: Sequence[Kind], share: int
) -> list[Delivery]:
    """Halve the share of an endpoint between its kinds; what one leaves the other may use."""
    if share == 1:  # else one kind would go before the other for ever
        kinds = random.sample(kinds, len(kinds))

    def take(kind: Kind, count: int) -> list[Delivery]:
        rows = scope.scheduled(using, kind.endpoint, retried=kind.retried).filter(
            available_at__lte=DatabaseNow()
        )
        return _take(rows, using, lease, count) if count else []

    part = ceil(share / len(kinds))
    taken = take(kinds[0], part)
    more = len(taken) == part
    for other in kinds[1:]:
        taken += take(other, share - len(taken))
    return taken + take(kinds[0], share - len(taken)) if more else taken


def claim_ids(
    using: str, lease: Lease, ids: Iterable[int], *, only_due: bool = False
) -> list[Delivery]:
    """Take these deliveries; whenever they would be due, unless told otherwise."""
    pending = Delivery.objects.using(using).filter(pk__in=list(ids), state=State.PENDING)
    if only_due:
        pending = pending.filter(available_at__lte=DatabaseNow())
    return _take(pending.order_by("id"), using, lease, None)


def _take(rows: DeliveryQuerySet, using: str, lease: Lease, limit: int | None) -> list[Delivery]:
    features = connections[using].features
    with own_transaction(using):
        rows = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        taken = list(rows[:limit])
        if not taken:
            return []
        Delivery.objects.using(using).filter(pk__in=[d.pk for d in taken]).update(
            available_at=DatabaseNow(lease.seconds),
            held_by=lease.holder,
            epoch=F("epoch") + 1,
        )
    crashpoints.reached("after_claim")
    for delivery in taken:
        delivery.epoch += 1
        delivery.held_by = lease.holder
    return taken


def seconds_until_due(
    using: str, scope: Scope, *, without: Collection[Kind] = ()
) -> dict[Kind, float]:
    """Return the seconds until the next delivery of each kind is due, negative if it is.

    Without those that have none scheduled. One query that looks at one row of the claim's index
    for each kind, and one more for the families: all that a process asks while nothing happens.
    """
    kinds = [kind for kind in scope.kinds() if kind not in without]
    firsts = [_first(using, scope, *kind, "endpoint", "retried", "seconds") for kind in kinds]
    found = {
        Kind(endpoint, bool(retried)): float(seconds)
        for endpoint, retried, seconds in _looks(using, firsts)
    }
    if scope.families and scope.dispatches:
        found |= _of_families(using, scope, without)
    return found


def due_kinds(seconds: Mapping[Kind, float]) -> list[Kind]:
    """Return the kinds of which something is due now, the longest due first."""
    return sorted((kind for kind, left in seconds.items() if left <= 0), key=seconds.__getitem__)


def _of_families(using: str, scope: Scope, without: Collection[Kind]) -> dict[Kind, float]:
    firsts = [_first(using, scope, families.EACH, retried, "seconds") for retried in (False, True)]
    each = families.ask_of_each(using, scope.environment, scope.families, *firsts)
    found = {
        Kind(endpoint, retried): float(seconds)
        for endpoint, answers in each.items()
        for retried, seconds in zip((False, True), answers, strict=True)
        if seconds is not None
    }
    return {kind: seconds for kind, seconds in found.items() if kind not in without}


def _first(
    using: str,
    scope: Scope,
    endpoint: str | RawSQL,
    retried: bool,  # noqa: FBT001 - as in Kind
    *shown: str,
) -> tuple[str, Sequence[Any]]:
    rows = scope.scheduled(using, endpoint, retried=retried)
    first: Any = rows.annotate(seconds=SecondsFromNow("available_at")).values_list(*shown)[:1]
    sql, values = first.query.get_compiler(using=using).as_sql()
    return sql, values


def _looks(using: str, firsts: Sequence[tuple[str, Sequence[Any]]]) -> Iterator[tuple[Any, ...]]:
    """Look at many places in the index, and yield the row that each query of one finds."""
    for i in range(0, len(firsts), _LOOKS):
        some = firsts[i : i + _LOOKS]
        # Each in a derived table: SQLite takes an ORDER BY in no other part of a union.
        looks = (f"SELECT * FROM ({sql}) AS first_{n}" for n, (sql, _values) in enumerate(some))
        with connections[using].cursor() as cursor:
            values = [value for _sql, given in some for value in given]
            cursor.execute(" UNION ALL ".join(looks), values)
            yield from cursor.fetchall()


def renew(using: str, lease: Lease, deliveries: Iterable[Delivery]) -> set[int]:
    """Start the lease of held deliveries anew, and return the ids that are still held.

    One that this very process claimed anew is held by that claim, and no longer by an earlier one.
    """
    kept: set[int] = set()
    for epoch, ids in _by_epoch((d.pk, d.epoch) for d in deliveries):
        rows = Delivery.objects.using(using).held(lease.holder, ids).filter(epoch=epoch)
        renewed = rows.update(available_at=DatabaseNow(lease.seconds))
        kept |= ids if renewed == len(ids) else set(rows.values_list("pk", flat=True))
    return kept


def hand_back(using: str, holder: str, held: Iterable[tuple[int, int]]) -> int:
    """Make held deliveries due at once for anybody, and return how many.

    Each is given by its id and the epoch of its claim, for the same reason as in ``renew()``.
    """
    count = 0
    for epoch, ids in _by_epoch(held):
        rows = Delivery.objects.using(using).held(holder, ids).filter(epoch=epoch)
        count += rows.update(available_at=DatabaseNow(), held_by="")
    return count


def _by_epoch(held: Iterable[tuple[int, int]]) -> Iterable[tuple[int, set[int]]]:
    ids: dict[int, set[int]] = {}
    for pk, epoch in held:
        ids.setdefault(epoch, set()).add(pk)
    return ids.items()


def read_back(using: str, holder: str, ids: Iterable[int]) -> list[Delivery]:
    """Return which of these the holder leased when it recorded them, as they were committed.

    One that was claimed since, perhaps by this very process, is in hand elsewhere.
    """
    wanted = list(ids)
    if not wanted:
        return []
    statement = _read_back_statement(using, len(wanted))
    return list(Delivery.objects.using(using).raw(statement, [*wanted, holder]))


@lru_cache(maxsize=64)
def _read_back_statement(using: str, count: int) -> str:
    """Return what ``held()`` asks, of the first epoch, by id.

    Each save is read back, and to compose this anew is half of what that costs.
    """
    quote = connections[using].ops.quote_name
    columns = ", ".join(quote(str(field.column)) for field in Delivery._meta.concrete_fields)
    return (
        f"SELECT {columns} FROM {quoted_table(using)} WHERE id IN ({', '.join(['%s'] * count)})"
        f" AND held_by = %s AND state = 'pending' AND epoch = {FIRST_EPOCH} ORDER BY id"
    )


def own_lease() -> Lease:
    """Return a lease of this process, as long as the settings say."""
    return Lease(holder(), settings.lease_seconds)


def holder() -> str:
    """Return who this process is in ``held_by``: host, pid, and a word against reused pids."""
    pid = os.getpid()
    if pid not in _holders:
        # Two threads may come here at once, and must be told the same.
        _holders.setdefault(pid, f"{socket.gethostname()[:100]}:{pid}:{secrets.token_hex(4)}")
    return _holders[pid]


_holders: dict[int, str] = {}
