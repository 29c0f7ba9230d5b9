"""What a worker of an engine does for one message: send deliveries one after the other."""

from collections.abc import Iterable, Sequence
from functools import partial
from threading import get_ident
from time import monotonic

from signal_dispatch import claims, lanes
from signal_dispatch.bounds import Bounds
from signal_dispatch.conf import settings
from signal_dispatch.inline import send_inline
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease
from signal_dispatch.scopes import Scope
from signal_dispatch.settling import Settlement

#: Seconds after which a message begins no further call; what is left is due at once for anybody.
BUDGET_SECONDS = 5.0
#: Deliveries that are claimed at once where nobody named any.
SHARE = 10


def drain(scope: Scope, using: str, ids: Sequence[int]) -> float | None:
    """Send these deliveries, as far as they are still due; without ids, whatever is due.

    Returns after how many seconds the first of them is to be tried again, None where none is.
    A message that comes twice, or late, finds nothing to do.
    """
    until = monotonic() + BUDGET_SECONDS
    # Each thread for itself: two that release lanes at once would both take what one moved.
    lease = Lease(f"{claims.holder()}:{get_ident()}", settings.lease_seconds)
    bounds, blocked = Bounds(using, until=until), set[str]()
    send = partial(send_inline, using=using, lease=lease, blocked=blocked, bounds=bounds)
    if ids:
        settled = send(_claim(scope, using, lease, ids, bounds))
    else:
        settled = []
        while monotonic() < until and (due := bounds.claim(lease, scope, SHARE)):
            settled += send(due)
    if blocked:  # nobody here comes back to look again
        settled += send(lanes.release_at_last(using, set(blocked), lease).taken)
    return _first_retry(settled)


def _claim(
    scope: Scope, using: str, lease: Lease, ids: Iterable[int], bounds: Bounds
) -> list[Delivery]:
    """Take those of the ids that this process knows, that are due, and that may be called now."""
    rows = scope.rows(using).filter(pk__in=list(ids)).values_list("pk", "endpoint")
    mine = [pk for pk, endpoint in rows if not bounds.shuts(endpoint)]
    return claims.claim_ids(using, lease, mine, only_due=True) if mine else []


def _first_retry(settled: Iterable[Settlement]) -> float | None:
    return min((s.delay for s in settled if not s.finished), default=None)
