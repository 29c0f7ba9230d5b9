"""The how-to on events that are no save."""

import pytest
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models.signals import post_delete, post_save, pre_delete

from signal_dispatch import enqueue
from tests.howto.pages import Page
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/events-of-your-own")
DECLARED = PAGE.block("class OrderToCRM")
REFUNDING = PAGE.block("def refund(")
MANY = PAGE.block("def refund_all")


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture
def page(write):
    return write(DECLARED, REFUNDING, MANY)


def events(deliveries):
    return [(d.event, d.state) for d in deliveries]


def test_declaration_has_no_fault(page, faults):
    assert faults() == set()


def test_refund_is_told_after_the_update(page, deliveries, mock_endpoint):
    crm = mock_endpoint("crm")
    crm.reply(200)
    order = Order.objects.create(number="A-1", status="paid", total="12.00")
    page["refund"](order)
    assert events(deliveries)[1:] == [("updated", "waiting"), ("refunded", "waiting")]

    deliveries.send()
    assert [(call.method, call.path) for call in crm.calls] == [
        ("PUT", "orders/A-1"),
        ("PUT", "orders/A-1"),
        ("POST", "orders/A-1/refunds"),
    ]
    assert crm.calls[2].json == {"amount": "12.00"}


def test_a_refund_that_is_rolled_back_tells_nobody(page, deliveries):
    order = Order.objects.create(number="A-1")
    with pytest.raises(RuntimeError), transaction.atomic():
        page["refund"](order)
        raise RuntimeError

    assert events(deliveries) == [("created", "pending")]


def test_each_in_a_transaction_is_a_delivery(page, deliveries):
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        assert [enqueue(order, event="refunded") for _ in range(2)] == [1, 1]

    assert [d.event for d in deliveries] == ["created", "refunded", "refunded"]


def test_when_changed_is_not_asked_and_should_send_is(write, deliveries):
    more = '    when_changed = ["status"]\n\n    def should_send(self, order, change):\n'
    write(f"{DECLARED}\n{more}        return order.number != 'A-2'\n")
    for number in ("A-1", "A-2"):
        enqueue(Order.objects.create(number=number), event="refunded")

    assert [d.payload.get("amount") for d in deliveries] == [None, "0"]


def test_it_fails_while_the_id_in_its_path_is_unknown(write, deliveries, mock_endpoint):
    code = DECLARED.replace("orders/{number}/refunds", "orders/{remote_id}/refunds")
    write(code.replace("fields =", 'remote_id = "id"\n    fields ='))
    mock_endpoint("crm").reply(200)
    order = Order(number="A-1")
    Order.objects.bulk_create([order])
    enqueue(order, event="refunded")
    deliveries.send()

    assert events(deliveries) == [("refunded", "failed")]
    assert "needs the remote's id" in deliveries[0].reason


def test_the_envelope_names_it(write, deliveries):
    write(DECLARED.replace("fields =", 'envelope = "standard"\n    fields ='))
    enqueue(Order.objects.create(number="A-1"), event="refunded")

    assert deliveries[1].payload["type"] == "order.refunded"


def test_many_are_told_at_once(page, deliveries):
    for number, status in [("A-1", "paid"), ("A-2", "draft"), ("A-3", "paid")]:
        Order.objects.create(number=number, status=status)

    assert page["refund_all"](Order.objects.order_by("-pk")) == 2
    refunded = [d.path for d in deliveries if d.event == "refunded"]
    assert refunded == ["orders/A-1/refunds", "orders/A-3/refunds"]


def test_one_dispatch_alone_can_be_asked(write, deliveries):
    names = write(DECLARED, DECLARED.replace("OrderToCRM", "OrderToOther"))
    order = Order(number="A-1")
    Order.objects.bulk_create([order])
    enqueue(order, event="refunded", dispatch=names["OrderToOther"])
    enqueue(order, event="refunded", dispatch="shop.OrderToCRM")

    assert [d.dispatch for d in deliveries] == ["shop.OrderToOther", "shop.OrderToCRM"]


def test_what_makes_no_sense_is_refused(page):
    saved = Order.objects.create(number="A-1")
    for thing, event in [(saved, "shipped"), (Order(number="A-2"), "refunded"), (Group(), "x")]:
        with pytest.raises(ValueError, match=r"event|saved|registered"):
            enqueue(thing, event=event)


def test_a_dispatch_of_such_events_alone_listens_to_no_save(write, deliveries):
    write(DECLARED.replace("Event.CREATED, Event.UPDATED, ", "", 1))
    order = Order.objects.create(number="A-1")
    assert not any(signal.has_listeners(Order) for signal in (post_save, pre_delete, post_delete))

    enqueue(order, event="refunded")
    assert events(deliveries) == [("refunded", "pending")]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"refunded": "orders/{number}/refunds",', "", "E031"),
        ('"refunded"', '"update"', "W006"),
    ],
)
def test_slips_are_found_by_a_check(write, faults, old, new, problem):
    write(DECLARED.replace(old, new))

    assert f"signal_dispatch.{problem}" in faults()
