"""Bring forward what waits for its next try, once its endpoint answers again."""

import logging

from django.db import connections
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Greatest, Least

from signal_dispatch.clocks import DatabaseNow, SpreadFromNow
from signal_dispatch.conf import settings
from signal_dispatch.databases import own_transaction
from signal_dispatch.models import Delivery, DeliveryQuerySet, State

logger = logging.getLogger("signal_dispatch")

#: How many are written at once.
BATCH = 500
#: Seconds over which many are spread; a few of them need less.
SPREAD_SECONDS = 30.0
_SECONDS_EACH = 0.05


def bring_forward(using: str, endpoint: str) -> int:
    """Make the waiting retries of an endpoint due, spread out, and return how many.

    None is moved to before the moment that the remote asked for, none to a later time than its
    own. One that was brought forward and failed again waits out its whole next time: else one
    that always fails, at an endpoint that is well, would use up its attempts within minutes.
    """
    moved = 0
    while True:
        found = _bring_some_forward(using, endpoint)
        moved += found
        if found < BATCH:
            break
    if moved:
        logger.info(
            "The endpoint %r answers again: %s waiting retries are brought forward.",
            endpoint,
            moved,
            extra={"action": "retries_brought_forward", "endpoint": endpoint},
        )
    return moved


def _bring_some_forward(using: str, endpoint: str) -> int:
    skip = connections[using].features.has_select_for_update_skip_locked
    with own_transaction(using):
        rows = _waiting(using, endpoint).select_for_update(skip_locked=skip)
        # The last ones first: what is moved is then behind, not in the way of the next look.
        ids = list(rows.order_by("-available_at", "-id").values_list("pk", flat=True)[:BATCH])
        spread = SPREAD_SECONDS if len(ids) == BATCH else len(ids) * _SECONDS_EACH
        soon = Greatest(SpreadFromNow("id", seconds=spread), Coalesce("not_before", DatabaseNow()))
        if ids:
            Delivery.objects.using(using).filter(pk__in=ids).update(
                forwarded_after=F("attempts"), available_at=Least("available_at", soon)
            )
    return len(ids)


def _waiting(using: str, endpoint: str) -> DeliveryQuerySet:
    return Delivery.objects.using(using).filter(
        Q(not_before=None) | Q(not_before__lt=F("available_at")),
        Q(forwarded_after=None) | Q(attempts__gt=F("forwarded_after") + 1),
        environment=settings.environment,
        endpoint=endpoint,
        retried__in=[True],  # not as a bare name, which is no place in an index
        available_at__gt=DatabaseNow(),
        state=State.PENDING,
        held_by="",
    )
