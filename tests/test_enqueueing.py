"""Deliveries for what changed without signals."""

import pytest
from django.db import connection, transaction
from django.db.migrations.state import ProjectState
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from signal_dispatch import Event, ModelDispatch, RetryPolicy, enqueue, enqueueing, suppressed
from signal_dispatch.models import Delivery
from tests.shop.models import Customer, Order, OrderProxy, PriorityOrder, Seat

pytestmark = pytest.mark.django_db


@pytest.fixture
def orders(declare):
    with suppressed():
        return [Order.objects.create(number=f"A-{n}") for n in range(5)]


def test_an_object_is_recorded_whatever_when_changed_says(declare, orders):
    declare(Order, when_changed=["status"])

    assert enqueue(orders[0]) == 1
    assert Delivery.objects.get().event == "updated"


def test_a_queryset_is_recorded_in_bulk(declare, orders):
    declare(Order)
    Order.objects.update(status="paid")
    with CaptureQueriesContext(connection) as queries:
        assert enqueue(Order.objects.filter(number__gt="A-0")) == 4

    inserts = [q for q in queries if q["sql"].startswith("INSERT")]
    assert len(inserts) == 1
    assert {d.payload["status"] for d in Delivery.objects.all()} == {"paid"}


def test_an_object_that_a_join_finds_twice_is_recorded_once(declare, monkeypatch):
    declare(Customer, fields=["name"])
    with suppressed():
        customer = Customer.objects.create(name="Ada")
        for number in "AB":
            Order.objects.create(number=number, customer=customer)
    monkeypatch.setattr(enqueueing, "BATCH", 1)

    assert enqueue(Customer.objects.filter(order__isnull=False)) == 1
    assert Delivery.objects.count() == 1


def test_should_send_is_asked(declare, orders):
    class Some(ModelDispatch):
        def should_send(self, order, change):
            return order.number != "A-1"

    declare(Order, base=Some)

    assert enqueue(Order.objects.all()) == 4
    assert enqueue(orders[1]) == 0


def test_hooks_may_ask_what_changed(declare, orders):
    class Asking(ModelDispatch):
        def should_send(self, order, change):
            return not change.changed("status")

    declare(Order, base=Asking, track=["status"])

    assert enqueue(Order.objects.all()) == 5
    assert enqueue(orders[0]) == 1


def test_the_policys_first_delay_holds_in_bulk(declare, orders):
    declare(Order, retry=RetryPolicy([100, 1], jitter=0))
    enqueue(Order.objects.all())

    waits = [(d.available_at - d.created_at).total_seconds() for d in Delivery.objects.all()]
    assert min(waits) > 95


def test_a_child_is_told_as_its_parent_and_as_itself(declare):
    declare(Order, track=["status"])
    declare(PriorityOrder, name="shop.C", fields=["level"], track=["level"])
    with suppressed():
        child = PriorityOrder.objects.create(number="C-1")

    assert enqueue(child) == 2


def test_a_lane_that_is_busy_makes_the_new_ones_wait(declare, orders):
    declare(Order)
    enqueue(orders[2])
    enqueue(Order.objects.all())

    states = Delivery.objects.order_by("id").values_list("state", flat=True)
    assert list(states) == ["pending", "pending", "pending", "waiting", "pending", "pending"]


def test_own_events_go_to_the_dispatches_that_know_them(declare, orders):
    declare(Order, on=["refunded"])
    declare(Order, name="shop.Other")

    assert enqueue(orders[0], event="refunded") == 1
    assert Delivery.objects.get().dispatch == "shop.Told"


def test_a_dispatch_can_be_named(declare, orders):
    told = declare(Order, on=[Event.CREATED])
    declare(Order, name="shop.Other")

    assert enqueue(orders[0], dispatch="shop.Other") == 1
    assert enqueue(orders[0], dispatch=told) == 1, "the one given is used, whatever its 'on'"


def test_an_object_recorded_before_is_refreshed_and_counted(declare, orders):
    declare(Order)
    with transaction.atomic():
        orders[0].status = "paid"
        orders[0].save()
        Order.objects.update(status=F("number"))
        assert enqueue(Order.objects.all()) == 5

    assert Delivery.objects.count() == 5
    assert Delivery.objects.earliest("id").payload["status"] == "A-0"


def test_suppressed_and_disabled_make_nothing(declare, orders, settings):
    declare(Order)
    with suppressed("shop.Told"):
        assert enqueue(orders[0]) == 0
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "https://x.example/", "ENABLED": False}}
    assert enqueue(Order.objects.all()) == 0


def test_historical_models_are_fine(declare, orders):
    declare(Order)
    state = ProjectState.from_apps(Order._meta.apps)
    historical = state.apps.get_model("shop", "Order")

    assert enqueue(historical.objects.all()) == 5
    assert enqueue(historical.objects.get(number="A-0")) == 1


def test_proxies_and_composite_keys_are_fine(declare, orders):
    declare(Order)
    declare(Seat, name="shop.Seats", fields=["row"])
    Seat.objects.bulk_create([Seat(row="A", number=n) for n in range(3)])

    assert enqueue(OrderProxy.objects.all()) == 5
    assert enqueue(Seat.objects.all()) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda: [Order(number="new")], "not saved"),
        (
            lambda: [Customer.objects.create(name="c")],
            "No dispatch is registered for shop.Customer",
        ),
        (lambda: [Order.objects.all(), "sold"], "no event 'sold'.*created, deleted, updated"),
        (lambda: [Order.objects.all(), Event.UPDATED, "shop.Nobody"], "No dispatch 'shop.Nobody'"),
    ],
)
def test_bad_calls_are_told_what_is_wrong(declare, arguments, words):
    declare(Order)
    with pytest.raises(ValueError, match=words):
        enqueue(*arguments())


@pytest.mark.parametrize("given", [[], Order, None, "A-1"])
def test_what_is_no_object_is_told_so(declare, given):
    declare(Order)
    with pytest.raises(TypeError, match="takes an object or a queryset"):
        enqueue(given)


@pytest.mark.django_db(databases=["default", "other"])
def test_the_alias_of_the_queryset_counts(declare):
    declare(Order)
    with suppressed():
        Order.objects.using("other").create(number="A-1")

    assert enqueue(Order.objects.using("other")) == 1
    assert Delivery.objects.using("other").count() == 1
