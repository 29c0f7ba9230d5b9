"""Name the endpoints that nobody calls just now, since when, and how much waits for them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models.functions import Coalesce

from signal_dispatch.clocks import SecondsFromNow
from signal_dispatch.conf import settings
from signal_dispatch.endpoints import breaker_of
from signal_dispatch.models import EndpointState


@dataclass(frozen=True, slots=True)
class Barred:
    """An endpoint that nobody calls: its breaker is open, or ``paused_by`` somebody.

    ``seconds_left`` until one call tries whether it is well, 0 where one may; None while paused.
    ``deliveries`` are all that are unfinished there.
    """

    endpoint: str
    seconds_left: float | None
    paused_by: str
    reason: str
    since_seconds_ago: float = 0.0
    deliveries: int = 0


def barred_in(using: str, unfinished: Mapping[str, int]) -> Iterator[Barred]:
    """Yield those of one outbox; ``unfinished`` says how many deliveries each endpoint has."""
    rows = EndpointState.objects.using(using).filter(environment=settings.environment)
    found: Any = rows.barred().annotate(
        left=SecondsFromNow("open_until"), since=SecondsFromNow(Coalesce("paused_at", "opened_at"))
    )
    for row in found.order_by("endpoint"):
        # A breaker that settings took away holds nobody up.
        if not row.paused_at and breaker_of(row.endpoint) is None:
            continue
        yield Barred(
            row.endpoint,
            None if row.paused_at else max(0.0, float(row.left)),
            row.paused_by,
            row.pause_reason,
            since_seconds_ago=max(0.0, -float(row.since or 0)),
            deliveries=unfinished.get(row.endpoint, 0),
        )
