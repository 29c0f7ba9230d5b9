"""Send deliveries one after the other in the calling thread, on its own connection."""

from collections import deque
from collections.abc import Iterable

from signal_dispatch import claims, lanes, settling
from signal_dispatch.bounds import Bounds
from signal_dispatch.concluding import tell
from signal_dispatch.delivering import deliver
from signal_dispatch.exceptions import LeaseLost
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease
from signal_dispatch.sender import SessionCache
from signal_dispatch.settling import Settlement


def send_inline(
    deliveries: Iterable[Delivery],
    using: str,
    lease: Lease,
    *,
    raising: bool = False,
    bounds: Bounds | None = None,
) -> list[Settlement]:
    """Make one attempt of each delivery, and of those that become free behind them.

    ``raising``: errors of the site's own hooks reach the caller. What the ``bounds`` do not
    let through is due at once for anybody. Returns what was settled.
    """
    queue, settled = deque(deliveries), []
    sessions = SessionCache()
    try:
        while queue:
            if bounds is not None and not bounds.allow(queue[0]):
                claims.hand_back(using, lease.holder, [queue.popleft().pk])
                continue
            settlement = _send_one(queue.popleft(), using, lease, sessions, raising=raising)
            if settlement is None:
                continue
            settled.append(settlement)
            if bounds is not None:
                bounds.count(settlement)
            if settlement.successor is not None:
                successor = [settlement.successor.pk]
                queue.extend(claims.claim_ids(using, lease, successor))
            lane = settlement.delivery.lane
            if settlement.finished and lane:
                queue.extend(lanes.release(using, [lane], lease).taken)
    finally:
        sessions.close()
        if queue:
            claims.hand_back(using, lease.holder, [d.pk for d in queue])
    return settled


def _send_one(
    delivery: Delivery, using: str, lease: Lease, sessions: SessionCache, *, raising: bool
) -> Settlement | None:
    # Those before it may have taken longer than the lease.
    if delivery.pk not in claims.renew(using, lease, [delivery]):
        return None
    try:
        settlement = deliver(delivery, using, sessions, sender_name=lease.holder, raising=raising)
    except LeaseLost:
        return None
    except BaseException:
        claims.hand_back(using, lease.holder, [delivery.pk])
        raise
    if not settlement.recorded and not settling.settle([settlement], using):
        return None
    tell([settlement], using)
    return settlement
