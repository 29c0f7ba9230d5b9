"""Deliveries that go out once more: the same call, or one built from the object anew."""

import threading

import pytest
from django.db import connections, transaction

from signal_dispatch import Event, resending
from signal_dispatch.models import Delivery
from signal_dispatch.resending import rebuild, resend
from signal_dispatch.signals import delivery_enqueued
from tests.deliveries import delivery
from tests.sending import attempt
from tests.settings import DATABASE
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

FINISHED = {"state": "delivered", "available_at": None}
CALL = {
    "method": "PUT",
    "path": "orders/A-1",
    "headers": {"Content-Type": "application/json"},
    "body": b'{"number": "A-1"}',
    "lane": "a",
}


def of(*made):
    return Delivery.objects.filter(pk__in=[each.pk for each in made])


def newest():
    return Delivery.objects.order_by("-pk")[0]


@pytest.mark.parametrize("state", ["delivered", "failed", "cancelled"])
def test_the_same_call_is_recorded_under_a_new_uid(state):
    made = delivery(**FINISHED | CALL | {"state": state, "attempts": 3, "hops": 2, "epoch": 4})

    assert resend(of(made)) == 1

    again = newest()
    for name in (*CALL, "dispatch", "endpoint", "event", "model", "object_pk", "environment"):
        assert getattr(again, name) == getattr(made, name), name
    assert again.uid != made.uid
    assert (again.state, again.attempts, again.hops, again.held_by) == ("pending", 0, 0, "")
    assert Delivery.objects.get(pk=made.pk).state == state


def test_what_is_not_finished_or_was_never_built_is_left_out():
    made = [
        delivery(),
        delivery(state="waiting", available_at=None),
        delivery(**FINISHED | {"state": "failed", "method": "", "error_class": "build"}),
    ]

    assert resend(of(*made)) == 0
    assert Delivery.objects.count() == 3


def test_what_was_masked_is_not_sent_again(declare):
    declare(Order, sensitive=["iban"])
    json = {"headers": {"Content-Type": "application/json"}}
    masked = delivery(**FINISHED, **json, body=b'{"iban":"[redacted]"}')
    whole = delivery(**FINISHED, **json, body=b'{"iban":"DE1"}')

    assert resend(of(masked, whole)) == 1
    assert newest().body == whole.body


def test_nor_what_was_masked_in_a_form(declare):
    declare(Order, sensitive=["iban"])
    form = {"headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    masked = delivery(**FINISHED, **form, body=b"iban=%5Bredacted%5D&a=1")
    whole = delivery(**FINISHED, **form, body=b"iban=DE1&a=1")

    assert resend(of(masked, whole)) == 1
    assert newest().body == whole.body


def test_it_waits_where_its_lane_is_busy():
    made = delivery(**FINISHED, lane="a")
    delivery(lane="a")

    resend(of(made))

    assert newest().state == "waiting"


def test_several_of_one_lane_go_one_after_the_other():
    made = [delivery(**FINISHED, lane="a", event=event) for event in ("one", "two", "three")]
    loose = [delivery(**FINISHED, event=event) for event in ("four", "five")]

    assert resend(of(*made, *loose)) == 5

    new = Delivery.objects.exclude(state="delivered").order_by("pk")
    in_lane = [(d.event, d.state) for d in new if d.lane]
    assert in_lane == [("one", "pending"), ("two", "waiting"), ("three", "waiting")]
    assert [d.state for d in new if not d.lane] == ["pending", "pending"]


def test_receivers_are_told():
    told = []

    def note(delivery, **kwargs):
        told.append(delivery.pk)

    made = delivery(**FINISHED)
    delivery_enqueued.connect(note)
    try:
        resend(of(made))
    finally:
        delivery_enqueued.disconnect(note)
    assert told == [newest().pk]


def test_many_are_recorded_in_batches(monkeypatch):
    monkeypatch.setattr(resending, "BATCH", 2)
    for _ in range(5):
        delivery(**FINISHED)

    assert resend(Delivery.objects.all()) == 5
    assert Delivery.objects.count() == 10


@pytest.mark.skipif(DATABASE == "sqlite", reason="SQLite has one writer.")
def test_it_is_recorded_in_the_order_of_commits(declare):
    declare(Order)
    order = Order.objects.create(number="A-1", status="paid")
    Delivery.objects.update(state="delivered", available_at=None)
    done = threading.Event()

    def again():
        try:
            resend(Delivery.objects.filter(state="delivered"))
        finally:
            done.set()
            connections.close_all()

    thread = threading.Thread(target=again)
    with transaction.atomic():
        order.status = "shipped"
        order.save()
        thread.start()
        assert not done.wait(0.3), "it waits for the object's row"
    thread.join()
    assert eventually(done.is_set)

    kept, saved, resent = Delivery.objects.order_by("pk")
    assert (saved.state, resent.state) == ("pending", "waiting")
    assert resent.body == kept.body


def test_rebuilt_it_carries_what_the_object_holds_now(declare, receiver):
    declare(Order, path="orders/{number}", method="PUT")
    order = Order.objects.create(number="A-1", status="draft")
    made = Delivery.objects.get()
    Delivery.objects.update(state="failed", available_at=None, attempts=12)
    Order.objects.filter(pk=order.pk).update(status="paid")

    assert rebuild(of(made)) == 1
    attempt()

    again = newest()
    assert (again.state, again.event, again.lane) == ("delivered", Event.CREATED, made.lane)
    assert again.uid != made.uid
    assert again.payload["status"] == "paid"
    assert receiver.requests[0].path == "/orders/A-1"


def test_one_that_could_not_be_built_is_built_under_its_own_uid(declare, receiver):
    declare(Order, path="orders/{number}", method="PUT")
    order = Order.objects.create(number="A-1", status="draft")
    Delivery.objects.all().delete()
    made = delivery(
        object_pk=order.pk, **FINISHED | {"state": "failed", "method": "", "error_class": "build"}
    )

    assert rebuild(of(made)) == 1
    attempt()

    (row,) = Delivery.objects.all()
    assert (row.uid, row.state, row.method) == (made.uid, "delivered", "PUT")


def test_what_was_deleted_can_not_be_built_anew():
    made = [delivery(**FINISHED, event="deleted"), delivery()]

    assert rebuild(of(*made)) == 0


@pytest.mark.parametrize("values", [{"attempts": 3}, {"state": "failed", "error_class": "loop"}])
def test_what_is_rebuilt_from_an_object_that_is_gone_ends_in_a_sentence(declare, receiver, values):
    declare(Order)
    made = delivery(**FINISHED | CALL | {"object_pk": 77} | values)

    assert rebuild(of(made)) == 1
    attempt()

    last = newest()
    assert (last.state, last.reason) == (
        "cancelled",
        "The object is gone, so there is nothing to tell of it.",
    )
    assert receiver.requests == []
