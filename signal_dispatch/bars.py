"""Which endpoints must not be called: a breaker is open, or a person paused them.

The state stands in the outbox, so every process sees it, and a restart keeps it. All times are
judged by the database's clock.
"""

import logging
from dataclasses import dataclass
from math import inf
from typing import Any

from django.db import IntegrityError
from django.db.models import Q

from signal_dispatch import signals
from signal_dispatch.breakers import Breaker
from signal_dispatch.clocks import DatabaseNow, SecondsFromNow
from signal_dispatch.conf import settings
from signal_dispatch.databases import own_transaction
from signal_dispatch.endpoint_states import EndpointStateQuerySet
from signal_dispatch.endpoints import breaker_of
from signal_dispatch.models import EndpointMinute, EndpointState

logger = logging.getLogger("signal_dispatch")

#: Seconds back that counts are forgotten when a breaker closes: longer than any window.
_LONGEST = 86400.0
_CLOSED = {"open_until": None, "opened_at": None}
_RUNNING = {"paused_at": None, "paused_by": "", "pause_reason": ""}


@dataclass(frozen=True, slots=True)
class Standing:
    """The endpoints that must not be called, and those that an incident goes on at.

    ``barred`` says in how many seconds one probe may be made: negative where it may, infinite
    while a person keeps the endpoint paused.
    """

    barred: dict[str, float]
    failing: frozenset[str]


def standing(using: str) -> Standing:
    """Ask an outbox how the endpoints stand that are not simply well."""
    rows = EndpointState.objects.using(using).filter(environment=settings.environment)
    found: Any = rows.barred_or_failing().annotate(left=SecondsFromNow("open_until"))
    states = list(found)
    # A breaker that settings took away holds nobody up.
    shut = [r for r in states if r.paused_at or (r.open_until and breaker_of(r.endpoint))]
    return Standing(
        {row.endpoint: inf if row.paused_at else row.left for row in shut},
        frozenset(row.endpoint for row in states if row.failing_since),
    )


def open_breaker(
    using: str, endpoint: str, breaker: Breaker, *, attempts: int, failed: int
) -> bool:
    """Let no process call the endpoint for a while; False where its breaker is open already."""
    until = {"open_until": DatabaseNow(breaker.pause), "opened_at": DatabaseNow()}
    if not write(using, endpoint, Q(open_until=None), until):
        return False
    logger.warning(
        "%s of the last %s attempts at the endpoint %r failed. It is left alone for %g s, "
        "then one call at a time tries whether it is well again.",
        failed,
        attempts,
        endpoint,
        breaker.pause,
        extra={"action": "breaker_opened", "endpoint": endpoint},
    )
    signals.breaker_opened.send_robust(
        sender=EndpointState, endpoint=endpoint, using=using, attempts=attempts, failed=failed
    )
    return True


def close_breaker(using: str, endpoint: str) -> None:
    """Let everybody call the endpoint again: a probe succeeded."""
    _pardon(using, endpoint)  # before it closes: else an old failure could open it at once
    if not state_of(using, endpoint).filter(open_until__isnull=False).update(**_CLOSED):
        return
    logger.info(
        "The endpoint %r is well again.",
        endpoint,
        extra={"action": "breaker_closed", "endpoint": endpoint},
    )
    signals.breaker_closed.send_robust(sender=EndpointState, endpoint=endpoint, using=using)


def begin_probe(using: str, endpoint: str, pause: float) -> bool:
    """Say whether this caller may make the one call that probes an open endpoint.

    The next probe may be made after another pause, whatever becomes of this one and its process.
    """
    due = state_of(using, endpoint).filter(open_until__lte=DatabaseNow(), paused_at__isnull=True)
    return bool(due.update(open_until=DatabaseNow(pause)))


def give_up_probe(using: str, endpoint: str) -> None:
    """Let another caller probe at once: this one had nothing to call, or learned nothing."""
    state_of(using, endpoint).filter(open_until__isnull=False).update(open_until=DatabaseNow())


def pause(using: str, endpoint: str, *, by: str, reason: str) -> bool:
    """Let no process call the endpoint; False where it was paused already."""
    values = {"paused_at": DatabaseNow(), "paused_by": by, "pause_reason": reason}
    return write(using, endpoint, Q(paused_at=None), values)


def give_reason(using: str, endpoint: str, *, by: str, reason: str) -> None:
    """Say anew why the endpoint is paused, where it is."""
    paused = state_of(using, endpoint).filter(paused_at__isnull=False)
    paused.update(paused_by=by, pause_reason=reason)


def resume(using: str, endpoint: str) -> bool:
    """Let everybody call the endpoint, also where its breaker is open; False where all did."""
    _pardon(using, endpoint)
    return bool(state_of(using, endpoint).barred().update(**_RUNNING, **_CLOSED))


def state_of(using: str, endpoint: str) -> EndpointStateQuerySet:
    """Select the row of an endpoint, where it has one."""
    rows = EndpointState.objects.using(using)
    return rows.filter(environment=settings.environment, endpoint=endpoint)


def _pardon(using: str, endpoint: str) -> None:
    rows = EndpointMinute.objects.using(using)
    rows.filter(environment=settings.environment, endpoint=endpoint).within(_LONGEST).pardon()


def write(using: str, endpoint: str, before: Q, after: dict[str, Any]) -> bool:
    """Write the state where it is still as before; say whether it was this caller who did."""
    rows = state_of(using, endpoint)
    if rows.filter(before).update(**after):
        return True
    if rows.exists():
        return False
    try:
        with own_transaction(using):
            rows.create(environment=settings.environment, endpoint=endpoint, **after)
    except IntegrityError:  # somebody else was first
        return bool(rows.filter(before).update(**after))
    return True
