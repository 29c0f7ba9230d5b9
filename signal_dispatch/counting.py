"""Count attempts for the breakers and for people: a row for each endpoint and minute."""

import random
from collections import Counter
from collections.abc import Mapping

from django.db import IntegrityError

from signal_dispatch.clocks import DatabaseMinute, DatabaseNow
from signal_dispatch.conf import settings
from signal_dispatch.databases import own_transaction
from signal_dispatch.models import Attempt, EndpointMinute
from signal_dispatch.outcomes import OutcomeKind, is_try_again

#: How long minutes are kept, in seconds.
KEEP_SECONDS = 8 * 86400.0
#: How many old ones are removed at once, and how seldom: at one in so many new minutes.
_REMOVED = 1000
_SELDOM = 100

_OUTCOMES = {
    OutcomeKind.DELIVERED: "delivered",
    OutcomeKind.RETRY: "retried",
    OutcomeKind.REJECTED: "rejected",
    OutcomeKind.RECREATE: "rejected",
}
_BUCKETS = {100: "within_100ms", 1_000: "within_1s", 10_000: "within_10s"}
# Nothing of the remote's: a handler that raised, and code around the attempt that broke.
_OUR_OWN = ("handler", "internal")


def counts_of(attempt: Attempt) -> Counter[str]:
    """Return what an attempt adds to its minute, by the names of fields."""
    if attempt.error_class == "internal":  # perhaps no call was made
        return Counter()
    names = ["attempts", _OUTCOMES[OutcomeKind(attempt.outcome)], "breaker_attempts"]
    if has_failed(attempt):
        names.append("breaker_failed")
    if attempt.status_code is None:
        names.append("unanswered")
    elif 2 <= attempt.status_code // 100 <= 5:
        names.append(f"answered_{attempt.status_code // 100}xx")
    names += [name for most, name in _BUCKETS.items() if attempt.duration_ms <= most][:1]
    return Counter({**dict.fromkeys(names, 1), "duration_ms": attempt.duration_ms})


def has_failed(attempt: Attempt) -> bool:
    """Say whether the endpoint let the attempt down: no answer, or 408, 425, 429 or 5xx.

    An answer for which the site's own code asked to try again does not count, nor does what the
    site's code raised.
    """
    if attempt.outcome != OutcomeKind.RETRY or attempt.error_class in _OUR_OWN:
        return False
    return attempt.status_code is None or is_try_again(attempt.status_code)


def add(using: str, endpoint: str, counts: Mapping[str, int]) -> None:
    """Add to the running minute of an endpoint: one statement, but for a minute's first.

    Not in the transaction that records the attempts: processes that record for several endpoints
    would wait for each other in a circle.
    """
    mine = {"environment": settings.environment, "endpoint": endpoint}
    rows = EndpointMinute.objects.using(using)
    if rows.filter(**mine).add(counts):
        return
    try:
        with own_transaction(using):
            rows.create(**mine, minute=DatabaseMinute(), **counts)
    except IntegrityError:  # somebody else was first
        rows.filter(**mine).add(counts)
    if random.randrange(_SELDOM) == 0:  # noqa: S311 - spreads load
        _remove_old(using)


def judged(using: str, endpoint: str, window: float) -> tuple[int, int]:
    """Return how many attempts the breaker counts within so many seconds, and how many failed."""
    rows = EndpointMinute.objects.using(using).within(window)
    return rows.filter(environment=settings.environment, endpoint=endpoint).judged()


def _remove_old(using: str) -> None:
    rows = EndpointMinute.objects.using(using)
    old = rows.filter(minute__lt=DatabaseNow(-KEEP_SECONDS)).order_by("minute")
    rows.filter(pk__in=list(old.values_list("pk", flat=True)[:_REMOVED])).delete()
