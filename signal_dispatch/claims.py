"""Take deliveries that are due, keep them, give them back."""

import os
import random
import secrets
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import F, Q, Value
from django.db.models.expressions import RawSQL

from signal_dispatch import crashpoints, families
from signal_dispatch.conf import settings
from signal_dispatch.databases import DatabaseNow, SecondsFromNow, own_transaction
from signal_dispatch.endpoints import endpoints
from signal_dispatch.models import Delivery, DeliveryQuerySet, State
from signal_dispatch.outbox import FIRST_EPOCH, Lease
from signal_dispatch.registry import registry

#: How many places in the index are looked at in one statement; SQLite takes 500 parts of a union.
_LOOKS = 200


class Kind(NamedTuple):
    """The first attempts of an endpoint, or its retries: each has a place of its own in the index.

    So a first attempt never waits behind a pile of retries.
    """

    endpoint: str
    retried: bool


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

    def kinds(self) -> list[Kind]:
        """Return what is looked for, apart from the families."""
        known = sorted(self.endpoints) if self.dispatches else []
        return [Kind(endpoint, retried) for endpoint in known for retried in (False, True)]

    def scheduled(self, using: str, endpoint: str | RawSQL, *, retried: bool) -> DeliveryQuerySet:
        """Return those of one kind that have a time, by it: just as the claim's index goes."""
        rows = self._known(using).filter(
            endpoint=endpoint,
            # A plain False would be written as NOT, which is no place in an index.
            retried=Value(retried),
            available_at__isnull=False,
        )
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
    taken: list[Delivery] = []
    for position, of_one in enumerate(kinds.values()):
        share = ceil((limit - len(taken)) / (len(kinds) - position))
        taken += _claim_share(using, lease, scope, of_one, share)
    return taken


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
    found: dict[Kind, float] = {}
    kinds = [kind for kind in scope.kinds() if kind not in without]
    for some in _chunks(kinds, _LOOKS):
        firsts = [_first(using, scope, *kind, "endpoint", "retried", "seconds") for kind in some]
        # Each in a derived table: SQLite takes an ORDER BY in no other part of a union.
        looks = (f"SELECT * FROM ({sql}) AS first_{n}" for n, (sql, _values) in enumerate(firsts))
        with connections[using].cursor() as cursor:
            values = [value for _sql, values in firsts for value in values]
            cursor.execute(" UNION ALL ".join(looks), values)
            for endpoint, retried, seconds in cursor.fetchall():
                found[Kind(endpoint, bool(retried))] = float(seconds)
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


def _chunks(kinds: Sequence[Kind], size: int) -> Iterator[Sequence[Kind]]:
    return (kinds[i : i + size] for i in range(0, len(kinds), size))


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
