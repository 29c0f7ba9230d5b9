"""Take deliveries that are due, keep them, give them back."""

import os
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connections
from django.db.models import F

from signal_dispatch import crashpoints
from signal_dispatch.conf import settings
from signal_dispatch.databases import DatabaseNow, SecondsFromNow, own_transaction
from signal_dispatch.models import Delivery, DeliveryQuerySet, State
from signal_dispatch.outbox import FIRST_EPOCH, Lease


@dataclass(frozen=True, slots=True)
class Scope:
    """Which deliveries a process may take.

    Rows of an endpoint or a dispatch that it does not know are left to others: during a deploy
    old and new code share the table. Rows of another environment are nobody's here.
    """

    environment: str
    endpoints: frozenset[str]
    dispatches: frozenset[str]

    def rows(self, using: str) -> DeliveryQuerySet:
        """Return those deliveries, in whatever state."""
        return Delivery.objects.using(using).filter(
            environment=self.environment,
            endpoint__in=self.endpoints,
            dispatch__in=self.dispatches,
        )


def claim(using: str, lease: Lease, scope: Scope, limit: int) -> list[Delivery]:
    """Take up to ``limit`` due deliveries, the longest due first, each for nobody else."""
    due = scope.rows(using).filter(available_at__lte=DatabaseNow())
    return _take(due.order_by("available_at", "id"), using, lease, limit)


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


def seconds_until_due(using: str, scope: Scope) -> float | None:
    """Return the seconds until the next delivery is due, negative if it is; None for none.

    One indexed query: all that a process asks while nothing happens.
    """
    row = (
        scope.rows(using)
        .filter(available_at__isnull=False)
        .order_by("available_at", "id")
        .annotate(seconds=SecondsFromNow("available_at"))
        .values_list("seconds", flat=True)
        .first()
    )
    return None if row is None else float(row)


def renew(using: str, lease: Lease, deliveries: Iterable[Delivery]) -> set[int]:
    """Start the lease of held deliveries anew, and return the ids that are still held.

    One that this very process claimed anew is held by that claim, and no longer by an earlier one.
    """
    ids_by_epoch: dict[int, set[int]] = {}
    for delivery in deliveries:
        ids_by_epoch.setdefault(delivery.epoch, set()).add(delivery.pk)
    kept: set[int] = set()
    for epoch, ids in ids_by_epoch.items():
        rows = Delivery.objects.using(using).held(lease.holder, ids).filter(epoch=epoch)
        renewed = rows.update(available_at=DatabaseNow(lease.seconds))
        kept |= ids if renewed == len(ids) else set(rows.values_list("pk", flat=True))
    return kept


def hand_back(using: str, holder: str, ids: Iterable[int]) -> int:
    """Make held deliveries due at once for anybody, and return how many."""
    rows = Delivery.objects.using(using).held(holder, ids)
    return rows.update(available_at=DatabaseNow(), held_by="")


def read_back(using: str, holder: str, ids: Iterable[int]) -> list[Delivery]:
    """Return which of these the holder leased when it recorded them, as they were committed.

    One that was claimed since, perhaps by this very process, is in hand elsewhere.
    """
    rows = Delivery.objects.using(using).held(holder, ids)
    return list(rows.filter(epoch=FIRST_EPOCH).order_by("id"))


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
