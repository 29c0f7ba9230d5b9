"""The how-to on calls that are put together when they are sent."""

import pytest
from django.db import transaction

from signal_dispatch.models import Delivery
from signal_dispatch.registry import registry
from signal_dispatch.repairing import retry
from tests.howto.pages import Page
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Order, Shipment

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/an-order-with-its-lines")
LATE = PAGE.block("class OrderToWarehouse")
PLACING = PAGE.block("def place")
ADDING = PAGE.block("def add")


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture
def page(write):
    return write(LATE, PLACING, ADDING)


@pytest.fixture
def crm(page, mock_endpoint):
    mock = mock_endpoint("crm")
    mock.reply(200)
    return mock


def test_declaration_has_no_fault(page, faults):
    assert faults() == set()


def test_lines_that_are_saved_after_the_order_are_sent(page, crm, deliveries):
    shipments = sorted([Shipment(), Shipment()], key=lambda s: s.pk)
    page["place"]("A-1", shipments)
    deliveries.send()

    (call,) = crm.calls
    assert call.json == {
        "number": "A-1",
        "status": "paid",
        "shipments": [{"id": str(s.pk)} for s in shipments],
    }


def test_with_the_snapshot_of_the_save_there_would_be_none(write, deliveries):
    names = write(LATE.replace('"send"', '"save"'), PLACING)
    names["place"]("A-1", [Shipment()])

    assert deliveries[0].payload["shipments"] == []


def test_a_new_line_is_told_with_its_order(page, crm, deliveries):
    order = page["place"]("A-1", [])
    deliveries.send()
    page["add"](Shipment(order=order))
    deliveries.send()

    assert [len(call.json["shipments"]) for call in crm.calls] == [0, 1]


def test_said_several_times_it_is_one_delivery(page, deliveries):
    order = page["place"]("A-1", [])
    with transaction.atomic():
        order.save()
        page["add"](Shipment(order=order))
        page["add"](Shipment(order=order))

    assert [d.event for d in deliveries] == ["created", "updated"]


def test_it_carries_the_state_of_then_and_later_attempts_the_same(page, deliveries, mock_endpoint):
    crm = mock_endpoint("crm")
    crm.fail(503, times=1)
    crm.reply(200)
    order = page["place"]("A-1", [])
    order.status = "sent"
    order.save()
    deliveries.send()
    Order.objects.update(status="lost")
    deliveries.send(until_done=True)

    assert [call.json["status"] for call in crm.calls] == ["sent", "sent", "lost"]


def test_an_order_that_is_gone_cancels_the_call(page, crm, deliveries):
    page["place"]("A-1", []).delete()
    deliveries.send()

    assert [d.state for d in deliveries] == ["cancelled"]
    assert not crm.calls


def test_a_hook_that_raises_fails_it_until_it_is_retried(write, receiver):
    names = write(LATE.replace("order.shipment_set", "order.lines"), PLACING)
    names["place"]("A-1", [Shipment()])
    attempt()
    made = Delivery.objects.get()
    assert (made.state, made.error_class) == ("failed", "build")
    assert "get_payload() raised AttributeError" in made.reason

    registry.remove(names["OrderToWarehouse"])
    write(LATE)
    retry(Delivery.objects.all())
    attempt()
    assert Delivery.objects.get().state == "delivered"
    assert len(receiver.requests) == 1
