"""Make attempts in the test's own thread, over real HTTP."""

from signal_dispatch import claims, sender
from signal_dispatch.inline import send_inline
from signal_dispatch.models import Delivery, State
from signal_dispatch.outbox import Lease
from signal_dispatch.settling import Settlement


def attempt(using: str = "default", *, raising: bool = False) -> list[Settlement]:
    """Make one attempt of all that is pending, whenever it is due, as production would."""
    lease = Lease(claims.holder(), 60)
    pending = Delivery.objects.using(using).filter(state=State.PENDING).values_list("pk", flat=True)
    guard, sender.network_guard = sender.network_guard, None
    try:
        return send_inline(claims.claim_ids(using, lease, pending), using, lease, raising=raising)
    finally:
        sender.network_guard = guard
