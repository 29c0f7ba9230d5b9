"""The how-to on the order of calls."""

import pytest

from signal_dispatch import enqueue
from tests.howto.pages import Page
from tests.once import ONCE
from tests.shop.models import Customer, Order

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/keep-order")
ORDERED = PAGE.block("class OrderToCRM")
UNORDERED = PAGE.block("class OrderToAudit")
NEEDING = PAGE.block("class OrderOfCustomer")
TEST = PAGE.block("def test_orders_changes")
IMPORTS = ORDERED.partition("@register")[0]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture(autouse=True)
def _endpoints(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        alias: {"URL": f"https://{alias}.example.com/"} for alias in ("crm", "audit")
    }


def test_declarations_have_no_fault(write, faults):
    write(ORDERED, UNORDERED, NEEDING)

    assert faults() == set()


def test_the_test_of_the_page_passes(write, db, deliveries, mock_endpoint):
    names = write(ORDERED, TEST)

    names["test_orders_changes_wait_for_each_other"](db, deliveries, mock_endpoint)


def test_lanes_are_of_one_dispatch_endpoint_and_object(write, deliveries):
    ordered = ORDERED.replace("UPDATED]", 'UPDATED, "refunded"]')
    write(ordered, ordered.replace("OrderToCRM", "OrderToCRMToo"), UNORDERED)
    order = Order.objects.create(number="A-1")
    order.save()
    enqueue(order, event="refunded")
    Order.objects.create(number="A-2")

    assert [d.state for d in deliveries if d.endpoint == "audit"] == ["pending"] * 3
    lanes = {}
    for made in deliveries:
        if made.endpoint == "crm":
            lanes.setdefault((made.dispatch, made.object_pk), []).append(made.state)
    assert list(lanes.values()) == [["pending", "waiting", "waiting"]] * 2 + [["pending"]] * 2


def test_after_the_last_attempt_the_lane_goes_on(write, deliveries, mock_endpoint):
    write(ORDERED)
    crm = mock_endpoint("crm")
    crm.fail(503, times=4)
    crm.reply(200)
    order = Order.objects.create(number="A-1")
    order.status = "paid"
    order.save()
    deliveries.send(until_done=True)

    assert [(d.state, d.attempts) for d in deliveries] == [("failed", 4), ("delivered", 1)]


@pytest.mark.parametrize("attribute", ['remote_id = "id"', "latest_wins = True"])
def test_what_needs_the_order_is_told_by_a_check(write, faults, attribute):
    write(IMPORTS, f"{UNORDERED}    {attribute}\n")

    assert faults() & {"signal_dispatch.E030", "signal_dispatch.E039"}


def test_an_order_whose_customer_is_not_known_is_tried_again(write, deliveries, mock_endpoint):
    write(IMPORTS, NEEDING)
    crm = mock_endpoint("crm")
    crm.fail(404, times=1)
    crm.reply(200)
    Order.objects.create(number="A-1", customer=Customer.objects.create(pk=7))
    deliveries.send()
    assert deliveries[0].reason == "The CRM does not know the customer yet."

    deliveries.send(until_done=True)
    assert deliveries[0].state == "delivered"
    assert crm.calls[1].path == "customers/7/orders/A-1"
