"""Make rows of the outbox by hand."""

from typing import Any

from signal_dispatch.databases import DatabaseNow
from signal_dispatch.models import Delivery


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
