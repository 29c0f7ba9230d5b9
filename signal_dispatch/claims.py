"""Take deliveries that are due, keep them, give them back."""

import os
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from django.db import connections
from django.db.models import F, Q
from django.db.models.expressions import RawSQL

from signal_dispatch import crashpoints, families
from signal_dispatch.conf import settings
from signal_dispatch.databases import DatabaseNow, SecondsFromNow, own_transaction
from signal_dispatch.endpoints import endpoints
from signal_dispatch.models import Delivery, DeliveryQuerySet, State
from signal_dispatch.outbox import FIRST_EPOCH, Lease
from signal_dispatch.registry import registry

#: How many endpoints are looked at in one statement; SQLite takes 500 parts of a union.
_LOOKS = 100


@dataclass(frozen=True, slots=True)
class Scope:
    """Which deliveries a process may take. ``dispatches``: name and model's label of each.

    ``families`` are entries with a RESOLVER, all of whose endpoints are meant.
    Rows of an endpoint or a dispatch that it does not know are left to others: during a deploy
    old and new code share the table. Rows of another environment are nobody's here.
    """

    environment: str
    endpoints: frozenset[str]
    dispatches: frozenset[tuple[str, str]]
    families: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        """Return the aliases of its endpoints and families."""
        return sorted(self.endpoints | self.families)

    def includes(self, endpoint: str) -> bool:
        """Say whether it is one of its endpoints, or of its families'."""
        family, colon, _key = endpoint.partition(":")
        return endpoint in self.endpoints or (bool(colon) and family in self.families)

    def rows(self, using: str) -> DeliveryQuerySet:
        """Return those deliveries, in whatever state."""
        named = Q(endpoint__in=self.endpoints)
        return self._known(using).filter(named | families.members(self.families))

    def scheduled(self, using: str, endpoint: str | RawSQL) -> DeliveryQuerySet:
        """Return those of one endpoint that have a time, by it: just as the claim's index goes."""
        rows = self._known(using).filter(endpoint=endpoint, available_at__isnull=False)
        return rows.order_by("available_at", "id")

    def _known(self, using: str) -> DeliveryQuerySet:
        # A name may be registered for several models, and for others of them by other code.
        by_model: dict[str, list[str]] = {}
        for name, model in sorted(self.dispatches):
            by_model.setdefault(model, []).append(name)
        known = Q(pk__in=())
        for model, names in by_model.items():
            known |= Q(model=model, dispatch__in=names)
        return Delivery.objects.using(using).filter(known, environment=self.environment)


def own_scope(aliases: Iterable[str]) -> Scope:
    """Return the scope of a process that sends to these endpoints, as far as it can."""
    named = frozenset(aliases)
    sound = frozenset(alias for alias in named if endpoints.find(alias) is not None)
    entries = (endpoints.entry(alias) for alias in named - sound if ":" not in alias)
    many = frozenset(entry.alias for entry in entries if entry and entry.resolver)
    return Scope(settings.environment, sound, frozenset(registry.pairs()), many)


def claim(
    using: str, lease: Lease, scope: Scope, limit: int, *, due: Sequence[str] | None = None
) -> list[Delivery]:
    """Take up to ``limit`` due deliveries, each for nobody else.

    ``due`` names the endpoints that have some, as ``due_endpoints()`` does; it is asked where
    nothing is given. Their shares are alike, so that one with a pile keeps no other out; within
    one the longest due goes first.
    """
    if due is None:
        due = due_endpoints(seconds_until_due(using, scope))
    taken: list[Delivery] = []
    for position, endpoint in enumerate(due):
        share = ceil((limit - len(taken)) / (len(due) - position))
        if share:
            rows = scope.scheduled(using, endpoint).filter(available_at__lte=DatabaseNow())
            taken += _take(rows, using, lease, share)
    return taken


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


def seconds_until_due(using: str, scope: Scope) -> dict[str, float]:
    """Return the seconds until an endpoint's next delivery is due, negative if it is.

    By endpoint, without those that have none scheduled. One query that looks at one row of the
    claim's index for each endpoint, and one more for the families: all that a process asks while
    nothing happens.
    """
    found: dict[str, float] = {}
    for some in _chunks(sorted(scope.endpoints) if scope.dispatches else [], _LOOKS):
        firsts = [_first(using, scope, endpoint, "endpoint", "seconds") for endpoint in some]
        # Each in a derived table: SQLite takes an ORDER BY in no other part of a union.
        looks = (f"SELECT * FROM ({sql}) AS first_{n}" for n, (sql, _values) in enumerate(firsts))
        with connections[using].cursor() as cursor:
            values = [value for _sql, values in firsts for value in values]
            cursor.execute(" UNION ALL ".join(looks), values)
            found |= {endpoint: float(seconds) for endpoint, seconds in cursor.fetchall()}
    if scope.families and scope.dispatches:
        first = _first(using, scope, families.EACH, "seconds")
        each = families.ask_of_each(using, scope.environment, scope.families, first)
        found |= {e: float(seconds) for e, (seconds,) in each.items() if seconds is not None}
    return found


def due_endpoints(seconds: Mapping[str, float]) -> list[str]:
    """Return the endpoints that have something due now, the longest due first."""
    return sorted((e for e, left in seconds.items() if left <= 0), key=seconds.__getitem__)


def _first(
    using: str, scope: Scope, endpoint: str | RawSQL, *shown: str
) -> tuple[str, Sequence[Any]]:
    rows = scope.scheduled(using, endpoint).annotate(seconds=SecondsFromNow("available_at"))
    first: Any = rows.values_list(*shown)[:1]
    sql, values = first.query.get_compiler(using=using).as_sql()
    return sql, values


def _chunks(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (names[i : i + size] for i in range(0, len(names), size))


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
