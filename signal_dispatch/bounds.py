"""Heed breakers, pauses and rates in a thread that sends by itself, without a bookkeeper."""

from math import inf
from time import monotonic

from signal_dispatch import bars, claims, counting, incidents
from signal_dispatch.jobs import Place
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.outbox import Lease
from signal_dispatch.probing import claim_probe
from signal_dispatch.rates import rates
from signal_dispatch.recovering import bring_forward
from signal_dispatch.scopes import Scope

#: Where an attempt of this process failed, and none succeeded since.
_ailing: set[Place] = set()


class Bounds:
    """What the outbox says of its endpoints just now, and what is learned while sending.

    After ``until``, by ``monotonic()``, nothing is let through any more.
    """

    def __init__(self, using: str, *, until: float = inf) -> None:
        self._using = using
        self._until = until
        standing = bars.standing(using)
        barred = standing.barred
        self._failing = set(standing.failing)
        #: Not to be called, the one delivery of each apart that probes it.
        self._shut = set(barred)
        self._ripe = {endpoint for endpoint, left in barred.items() if left <= 0}
        self._probes: set[int] = set()

    def claim(self, lease: Lease, scope: Scope, limit: int) -> list[Delivery]:
        """Take what is due at endpoints that may be called, and a probe of each that may be."""
        due = claims.due_kinds(claims.seconds_until_due(self._using, scope))
        probes = []
        for endpoint in sorted({kind.endpoint for kind in due} & self._ripe):
            if probe := claim_probe(self._using, lease, scope, endpoint, due):
                probes.append(probe)
                self._probes.add(probe.pk)
        free = [kind for kind in due if kind.endpoint not in self._shut]
        return probes + claims.claim(self._using, lease, scope, limit, due=free)

    def shuts(self, endpoint: str) -> bool:
        """Say whether nothing but a probe may be sent there."""
        return endpoint in self._shut

    def allow(self, delivery: Delivery) -> bool:
        """Say whether a delivery may be sent now."""
        alias = delivery.endpoint
        if alias in self._shut and delivery.pk not in self._probes:
            return False
        if monotonic() > self._until:
            return False
        if not rates.seconds_to_wait(alias):
            return True
        self._shut.add(alias)  # until the next commit
        return False

    def count(self, delivery: Delivery, attempt: Attempt | None) -> None:
        """Tell the outbox how a call went; open or close the breaker by what it knows.

        ``attempt`` is None where none was made.
        """
        endpoint, probe = delivery.endpoint, delivery.pk in self._probes
        counts = counting.counts_of(attempt) if attempt else None
        if not counts:
            if probe:
                bars.give_up_probe(self._using, endpoint)
            return
        counting.add(self._using, endpoint, counts)
        place = Place(self._using, endpoint)
        if counts["breaker_failed"]:
            _ailing.add(place)
            self._judge(endpoint)
        elif probe:
            bars.close_breaker(self._using, endpoint)
            self._shut.discard(endpoint)
        if counts["answered_2xx"]:
            self._end_incident(endpoint)
        if counts["answered_2xx"] and (probe or place in _ailing):
            _ailing.discard(place)
            bring_forward(self._using, endpoint)

    def _end_incident(self, endpoint: str) -> None:
        """End it at the first success after a calm minute: there is no thread to look later."""
        known = endpoint in self._failing
        if known and incidents.end_if_well(self._using, endpoint, apart=False):
            self._failing.discard(endpoint)

    def _judge(self, endpoint: str) -> None:
        known = endpoint in self._failing
        verdict = incidents.judge(self._using, endpoint, known=known, apart=False)
        if verdict.fails:
            self._failing.add(endpoint)
        if verdict.opens:
            self._shut.add(endpoint)
