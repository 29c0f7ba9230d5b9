"""Take the one delivery that tries whether an endpoint is well again."""

from collections.abc import Iterable

from signal_dispatch import bars, claims
from signal_dispatch.breakers import Breaker
from signal_dispatch.endpoints import endpoints
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease
from signal_dispatch.scopes import Kind, Scope


def claim_probe(
    using: str, lease: Lease, scope: Scope, endpoint: str, due: Iterable[Kind]
) -> Delivery | None:
    """Take what is longest due at an endpoint whose breaker may be probed; None where none may.

    One caller at a time may: all others, of whatever process, are refused for another pause.
    """
    found = endpoints.find(endpoint)
    if found is None:
        return None
    pause = (found.breaker or Breaker()).pause
    # A probe that hangs is to end before there is another one.
    if not bars.begin_probe(using, endpoint, max(pause, found.deadline)):
        return None
    for kind in due:
        if kind.endpoint == endpoint:
            for delivery in claims.claim(using, lease, scope, 1, due=[kind]):
                return delivery
    bars.give_up_probe(using, endpoint)
    return None
