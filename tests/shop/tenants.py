"""Where the endpoints of the customers are: their subscriptions."""

from typing import Any

from tests.shop.models import Subscription


def endpoint_of(key: str) -> dict[str, Any]:
    """Return the endpoint of a subscription by its key; raises ``DoesNotExist``."""
    subscription = Subscription.objects.get(pk=key, active=True)
    return {
        "URL": subscription.url,
        "HEADERS": {"Authorization": f"Bearer {subscription.token}"},
    }
