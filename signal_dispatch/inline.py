"""Send deliveries one after the other in the calling thread, on its own connection."""

from collections import deque
from collections.abc import Iterable
from time import monotonic

from signal_dispatch import claims, lanes, settling
from signal_dispatch.batches import settle_all
from signal_dispatch.bounds import Bounds
from signal_dispatch.calling import send_limit_of
from signal_dispatch.concluding import tell
from signal_dispatch.delivering import deliver
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import LeaseLost
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease
from signal_dispatch.sessions import SessionCache
from signal_dispatch.settling import Settlement


def send_inline(
    deliveries: Iterable[Delivery],
    using: str,
    lease: Lease,
    *,
    raising: bool = False,
    blocked: set[str] | None = None,
    bounds: Bounds | None = None,
) -> list[Settlement]:
    """Make one attempt of each delivery, and of those that become free behind them.

    ``raising``: errors of the site's own hooks reach the caller. Lanes whose first somebody had
    locked are added to ``blocked``. What the ``bounds`` do not let through is due at once for
    anybody. Returns what was settled.
    """
    queue, settled = deque(deliveries), []
    blocked = set() if blocked is None else blocked
    sessions = SessionCache()
    try:
        while queue:
            if bounds is not None and not bounds.allow(queue[0]):
                held = queue.popleft()
                claims.hand_back(using, lease.holder, [(held.pk, held.epoch)])
                continue
            delivery = queue.popleft()
            settlement = _send_one(delivery, using, lease, sessions, raising=raising)
            if bounds is not None:
                bounds.count(delivery, settlement.attempt if settlement else None)
            if settlement is None:
                continue
            settled.append(settlement)
            if settlement.successor is not None:
                successor = [settlement.successor.pk]
                queue.extend(claims.claim_ids(using, lease, successor))
            lane = settlement.delivery.lane
            if settlement.finished and lane:
                released = lanes.release(using, [lane], lease)
                queue.extend(released.taken)
                blocked |= released.blocked
    finally:
        sessions.close()
        if queue:
            claims.hand_back(using, lease.holder, [(d.pk, d.epoch) for d in queue])
    return settled


def _send_one(
    delivery: Delivery, using: str, lease: Lease, sessions: SessionCache, *, raising: bool
) -> Settlement | None:
    # Those before it may have taken longer than the lease.
    if delivery.pk not in claims.renew(using, lease, [delivery]):
        return None

    def resolve(alias: str) -> Endpoint:
        began = monotonic()
        endpoint = endpoints.resolve(alias)
        longest = Lease(lease.holder, max(lease.seconds, send_limit_of(delivery) or 0.0))
        # That may take its time, too; and nobody renews a lease while send() keeps this thread.
        again = monotonic() - began > 1 or longest.seconds > lease.seconds
        if again and not claims.renew(using, longest, [delivery]):
            raise LeaseLost(f"Resolving {alias!r} took too long: delivery {delivery.pk} waits.")
        return endpoint

    try:
        settlement = deliver(
            delivery, using, sessions, sender_name=lease.holder, raising=raising, resolve=resolve
        )
    except LeaseLost:
        return None
    except BaseException:
        claims.hand_back(using, lease.holder, [(delivery.pk, delivery.epoch)])
        raise
    # What can't be stored raises where somebody wants to hear of it; else the attempt counts.
    settle = settling.settle if raising else settle_all
    if not settlement.recorded and not settle([settlement], using):
        return None
    tell([settlement], using, apart=False)
    return settlement
