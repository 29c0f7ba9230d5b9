"""Two dispatches that answer each other come to an end."""

import pytest

from signal_dispatch import ModelDispatch
from signal_dispatch.backends import backends
from signal_dispatch.models import Delivery
from signal_dispatch.suppression import MAX_HOPS
from tests.settings import DATABASE
from tests.shop.models import Customer, Order

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Threads are locked out of an in-memory database.",
    ),
]


class OrderTold(ModelDispatch):
    """Save the order's customer with each answer."""

    def handle_response(self, delivery, response):
        customer = Order.objects.get(pk=delivery.object_pk).customer
        customer.name += "."
        customer.save()


class CustomerTold(ModelDispatch):
    """Save the customer's order with each answer."""

    def handle_response(self, delivery, response):
        order = Order.objects.get(customer=delivery.object_pk)
        order.notes += "."
        order.save()


@pytest.mark.parametrize("merge", [True, False])
def test_dispatches_that_save_each_others_object_end_after_five_calls(receiver, declare, merge):
    order = Order.objects.create(number="A-1", customer=Customer.objects.create(name="Ann"))
    declare(Order, base=OrderTold, name="shop.OrderTold", path="orders", merge=merge)
    declare(
        Customer,
        base=CustomerTold,
        name="shop.CustomerTold",
        path="customers",
        fields=["name"],
        merge=merge,
    )
    order.save()
    backends["default"].drain(30)

    assert [r.path for r in receiver.requests] == [
        "/orders",
        "/customers",
        "/orders",
        "/customers",
        "/orders",
    ]
    rows = list(Delivery.objects.order_by("id"))
    assert [row.hops for row in rows] == list(range(MAX_HOPS + 1)) == [0, 1, 2, 3, 4, 5]
    assert [row.state for row in rows] == ["delivered"] * 5 + ["failed"]
    assert rows[-1].error_class == "loop"
    assert rows[-1].reason.startswith(
        "5 answers in a row led to this change: dispatches that answer each other."
    )


def test_an_answer_written_back_to_the_own_object_calls_nobody(receiver, declare):
    class Written(ModelDispatch):
        def handle_response(self, delivery, response):
            order = Order.objects.get(pk=delivery.object_pk)
            order.notes = "told"
            order.save()

    declare(Order, base=Written)
    order = Order.objects.create(number="A-1")
    backends["default"].drain(30)

    order.refresh_from_db()
    assert (order.notes, len(receiver.requests)) == ("told", 1)
