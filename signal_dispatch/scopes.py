"""Say which deliveries a process may take: of which endpoints and dispatches."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from django.db.models import Q, Value
from django.db.models.expressions import RawSQL

from signal_dispatch import families
from signal_dispatch.conf import settings
from signal_dispatch.endpoints import endpoints
from signal_dispatch.models import Delivery, DeliveryQuerySet
from signal_dispatch.registry import registry


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
