"""The how-to on replacing what waits."""

import pytest

from signal_dispatch import claims, enqueue
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease
from tests.howto.pages import Page
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Customer, Order

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/latest-state-wins")
REPLACING = PAGE.block("class OrderToCRM")
DEBOUNCED = PAGE.block("class CustomerToCRM")
TEST = PAGE.block("def test_last_save_wins")
IMPORTS = REPLACING.partition("@register")[0]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


def states(deliveries):
    return [(d.event, d.state) for d in deliveries]


def test_declarations_have_no_fault(write, faults):
    write(REPLACING, DEBOUNCED)

    assert faults() == set()


def test_without_a_lane_it_is_refused_by_a_check(write, faults):
    write(f"{REPLACING}    ordered = False\n")

    assert faults() == {"signal_dispatch.E039"}


def test_the_test_of_the_page_passes(write, db, deliveries, mock_endpoint):
    names = write(IMPORTS, DEBOUNCED, TEST)

    names["test_last_save_wins"](db, deliveries, mock_endpoint)


def test_what_is_delayed_is_not_due(write, deliveries, mock_endpoint):
    write(IMPORTS, DEBOUNCED)
    mock_endpoint("crm")
    Customer.objects.create(name="Ada")

    assert deliveries.send() == []


def test_no_more_than_one_waits_while_the_crm_is_down(write, deliveries, mock_endpoint):
    write(REPLACING)
    crm = mock_endpoint("crm")
    crm.fail(503, times=2)
    crm.reply(200)
    order = Order.objects.create(number="A-1")
    deliveries.send()
    for total in (1, 2, 3):
        order.total = total
        order.save()

    *replaced, last = deliveries
    assert {d.state for d in replaced} == {"cancelled"}
    assert [d.replaced_by_id for d in replaced] == [d.pk for d in deliveries[1:]]
    assert (last.event, last.attempts) == ("created", 0)
    assert deliveries.send() == []  # due no sooner than the one it replaced

    deliveries.send(until_done=True)
    assert deliveries[-1].attempts == 2
    assert crm.calls[-1].json["total"] == "3.00"


def test_what_is_under_way_stays_and_the_newer_one_waits_for_it(write, db):
    write(REPLACING)
    order = Order.objects.create(number="A-1")

    claims.claim_ids("default", Lease("another:1", 60), [Delivery.objects.get().pk])
    order.save()
    order.save()

    assert list(Delivery.objects.order_by("id").values_list("state", flat=True)) == [
        "pending",
        "cancelled",
        "waiting",
    ]


def test_one_whose_answer_came_stays(write, receiver):
    code = "\n    def handle_response(self, delivery, response):\n        raise KeyError('id')\n"
    write(REPLACING + code)
    order = Order.objects.create(number="A-1")
    attempt()
    order.save()

    assert list(Delivery.objects.order_by("id").values_list("state", flat=True)) == [
        "pending",
        "waiting",
    ]


def test_created_and_deleted_before_a_try_are_nothing(write, deliveries):
    write(REPLACING)
    Order.objects.create(number="A-1").delete()

    assert states(deliveries) == [("created", "cancelled"), ("deleted", "cancelled")]


def test_events_of_your_own_stay_with_what_is_before_them(write, deliveries):
    write(
        REPLACING.replace("latest", 'on = [*Event, "refunded"]\n    latest').replace(
            "Event.DELETED:", '"refunded": "POST", Event.DELETED:'
        )
    )
    order = Order.objects.create(number="A-1")
    enqueue(order, event="refunded")
    order.save()
    order.save()

    assert states(deliveries) == [
        ("created", "pending"),
        ("refunded", "waiting"),
        ("updated", "cancelled"),
        ("updated", "waiting"),
    ]


def test_delay_alone_drops_nothing(write, deliveries, mock_endpoint):
    write(IMPORTS, DEBOUNCED.replace("latest_wins = True", "merge = True"))
    mock_endpoint("crm").reply(200)
    customer = Customer.objects.create(name="Ada")
    customer.save()
    assert deliveries.send() == []

    deliveries.send(until_done=True)
    assert [d.state for d in deliveries] == ["delivered", "delivered"]
