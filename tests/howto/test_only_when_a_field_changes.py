"""The how-to on changes of fields."""

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from tests.howto.pages import Page
from tests.once import ONCE
from tests.shop.models import Order, Tag

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/only-when-a-field-changes")
WHEN_CHANGED = PAGE.block("class OrderToCRM")
BECAME = PAGE.block("class ReceiptOfOrder")
OLD = PAGE.block("class StatusOfOrder")
EVENT = PAGE.block("class OrderInWindow")
IMPORTS = WHEN_CHANGED.partition("@register")[0]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture(autouse=True)
def _endpoints(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        alias: {"URL": f"https://{alias}.example.com/"} for alias in ("crm", "mail", "window")
    }


def test_declarations_have_no_fault(write, faults):
    write(WHEN_CHANGED, BECAME, OLD, EVENT)

    assert faults() == set()


def test_a_save_that_changes_nothing_of_interest_makes_no_delivery(write, deliveries):
    write(WHEN_CHANGED)
    order = Order.objects.create(number="A-1", total=12)
    stale = Order.objects.get()
    order.notes = "Ring twice."
    order.save()
    order.total = "12.00"
    order.save(update_fields=["total"])
    assert len(deliveries) == 1

    order.total = F("total") + 1
    order.save()
    assert len(deliveries) == 2

    stale.save()  # writes 12 over the 13 that it never saw
    assert [d.payload["total"] for d in deliveries] == ["12.00", "13.00", "12.00"]


def test_it_costs_a_select_for_each_save(write):
    order = Order.objects.create(number="A-1")
    write(WHEN_CHANGED)
    with CaptureQueriesContext(connection) as context:
        order.save()

    assert len([q for q in context if q["sql"].startswith("SELECT")]) == 1


def test_a_transaction_makes_one_delivery_with_the_last_state(write, deliveries):
    write(WHEN_CHANGED)
    order = Order.objects.create(number="A-1", status="paid")
    with transaction.atomic():
        for status in ("sent", "paid"):
            order.status = status
            order.save()

    assert [d.payload["status"] for d in deliveries] == ["paid", "paid"]


def test_old_is_what_stood_there_before_the_transaction(write, deliveries):
    write(IMPORTS, OLD)
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        for status in ("paid", "sent"):
            order.status = status
            order.save()

    assert [d.payload for d in deliveries] == [{"from": "draft", "to": "sent"}]


def test_many_to_many_changes_are_not_judged(write, deliveries):
    write(WHEN_CHANGED.replace("when_changed", 'm2m_fields = ["tags"]\n    when_changed'))
    order = Order.objects.create(number="A-1")
    order.tags.add(Tag.objects.create(name="new"))

    assert [d.event for d in deliveries] == ["created", "updated"]


def test_receipt_is_sent_when_the_order_becomes_paid(write, deliveries):
    write(IMPORTS, BECAME)
    order = Order.objects.create(number="A-1")
    order.status = "paid"
    order.save()
    order.save()
    Order.objects.create(number="A-2", status="paid")

    assert [(d.event, d.payload["number"]) for d in deliveries] == [
        ("updated", "A-1"),
        ("created", "A-2"),
    ]


def test_asking_for_what_is_not_tracked_raises(write):
    write(IMPORTS, BECAME.replace('track = ["status"]', "track = []"))
    order = Order.objects.create(number="A-1", status="paid")

    with pytest.raises(ValueError, match="track"):
        order.save()


def test_the_old_value_is_sent(write, deliveries):
    write(IMPORTS, OLD)
    order = Order.objects.create(number="A-1")
    order.status = "paid"
    order.save()

    assert [d.payload for d in deliveries] == [{"from": "draft", "to": "paid"}]


def test_window_knows_what_is_no_draft(write, deliveries):
    write(IMPORTS, EVENT)
    order = Order.objects.create(number="A-1")
    for status in ("draft", "paid", "sent", "draft", "draft", "paid"):
        order.status = status
        order.save()
    order.delete()
    Order.objects.create(number="A-2").delete()

    assert [(d.method, d.event) for d in deliveries] == [
        ("PUT", "created"),
        ("PUT", "updated"),
        ("DELETE", "deleted"),
        ("PUT", "created"),
        ("DELETE", "deleted"),
    ]


def test_should_send_that_turns_false_takes_back(write, deliveries):
    write(IMPORTS, BECAME)
    with transaction.atomic():
        order = Order.objects.create(number="A-1", status="paid")
        order.status = "draft"
        order.save()

    assert len(deliveries) == 0
