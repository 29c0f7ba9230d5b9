"""Which changes of the shop call whom. Nothing else in the shop knows of it."""

from demo_site.shop.models import Order
from signal_dispatch import Change, Event, ModelDispatch, Response, register
from signal_dispatch.models import Delivery


@register(Order)
class OrderToCRM(ModelDispatch[Order]):
    """Tell the CRM about each order that is no draft any more, and keep the id it gives."""

    endpoint = "crm"
    path = "orders/{number}"
    method = "PUT"
    on = [Event.CREATED, Event.UPDATED]
    fields = ["number", "status", "total", "customer__email"]
    when_changed = ["status", "total"]

    def should_send(self, order: Order, change: Change[Order]) -> bool:
        """Keep drafts in the shop."""
        return order.status != "draft"

    def handle_response(self, delivery: Delivery, response: Response) -> None:
        """Store the CRM's id for the order."""
        Order.objects.filter(pk=delivery.object_pk).update(crm_id=response.json()["id"])
