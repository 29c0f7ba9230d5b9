"""Make rows of the outbox by hand."""

from datetime import datetime
from typing import Any

from django.utils import timezone

from signal_dispatch import outbox
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.outbox import Lease

MINE = Lease("me", 60)


def delivery(using: str = "default", **values: Any) -> Delivery:
    """Save a delivery that is due, unless the values say otherwise."""
    defaults: dict[str, Any] = {
        "dispatch": "shop.Told",
        "endpoint": "crm",
        "event": "updated",
        "model": "shop.order",
        "object_pk": 1,
        "method": "POST",
        "available_at": DatabaseNow(),
        "created_at": DatabaseNow(),
    }
    return Delivery.objects.using(using).create(**defaults | values)


def new(**values: Any) -> Delivery:
    """Return a delivery that is not written yet."""
    defaults = {"dispatch": "shop.Told", "endpoint": "crm", "event": "updated"}
    return Delivery(**defaults | {"model": "shop.order", "object_pk": 1} | values)


def recorded(
    *, lease: Lease | None = None, delay: float = 0.0, look: bool = True, **values: Any
) -> tuple[Delivery, Delivery]:
    """Record a new delivery as a save does; return it, and its row as it stands."""
    made = new(**values)
    outbox.record(made, "default", lease=lease, delay=delay, look=look)
    return made, Delivery.objects.get(pk=made.pk)


def attempt_of(made: Delivery, **values: Any) -> Attempt:
    """Return the next attempt of a delivery, not written yet."""
    defaults = {"number": made.attempts + 1, "started_at": timezone.now(), "outcome": "delivered"}
    return Attempt(delivery=made, **defaults | values)


def statements(queries: Any, *verbs: str) -> list[str]:
    """Return the captured statements that begin with one of the verbs."""
    return [q["sql"] for q in queries if q["sql"].startswith(verbs)]


def seconds_until(moment: datetime) -> float:
    """Return the seconds from now, by this process's clock."""
    return (moment - timezone.now()).total_seconds()
