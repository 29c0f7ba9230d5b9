"""``Outcome.recreate()``: the remote lost an object, and is told of it from the beginning."""

import pytest
from django.db import OperationalError

from signal_dispatch import Event, Outcome, RetryPolicy, recreating
from signal_dispatch.models import Attempt, Delivery, RemoteObject
from signal_dispatch.signals import delivery_enqueued, delivery_finished
from tests.sending import attempt
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = pytest.mark.django_db

PATHS = {"created": "orders", "updated": "orders/{remote_id}", "deleted": "orders/{remote_id}"}
METHODS = {"created": "POST", "updated": "PATCH", "deleted": "DELETE"}


def anew_where_it_is_lost(dispatch, delivery, response):
    return Outcome.recreate() if response.status_code == 404 else None


@pytest.fixture
def contact(declare):
    def contact(**attributes):
        defaults = {
            "fields": ["number", "status"],
            "path": PATHS,
            "method": METHODS,
            "remote_id": "id",
            "get_outcome": anew_where_it_is_lost,
            "retry": RetryPolicy([0, 0], jitter=0),
        }
        return declare(Order, **defaults | attributes)

    return contact


@pytest.fixture
def forgetful(receiver):
    """A remote that gives out ids, and can be told to lose what it has."""
    known = []

    def script(request):
        if request.method == "POST":
            known.append(f"c-{len(receiver.requests)}")
            return 201, {"Content-Type": "application/json"}, b'{"id": "%s"}' % known[-1].encode()
        if request.path.rpartition("/")[2] not in known:
            return 404, {}, b"{}"
        return 200, {"Content-Type": "application/json"}, b"{}"

    receiver.script, receiver.known = script, known
    return receiver


def get_payload(self, instance, change):
    """Fail where the site's own code would."""
    return 1 / 0


def calls(receiver):
    return [f"{request.method} {request.path}" for request in receiver.requests]


def connected(signal, heard):
    """Collect the deliveries that a signal tells of; return the receiver."""

    def note(delivery, **kwargs):
        heard.append(delivery)

    signal.connect(note, weak=False)
    return note


def rows():
    return list(Delivery.objects.order_by("id"))


def save(order, status):
    order.status = status
    order.save()


def test_it_is_created_anew_before_what_waits(contact, forgetful):
    contact()
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    save(order, "paid")
    save(order, "sent")
    attempt()

    assert calls(forgetful) == [
        "POST /orders",
        "PATCH /orders/c-1",
        "POST /orders",
        "PATCH /orders/c-3",
    ]
    created, lost, _waiting, anew = rows()
    assert [d.state for d in rows()] == ["delivered", "failed", "delivered", "delivered"]
    assert (lost.error_class, lost.replaced_by_id) == ("lost", anew.pk)
    assert "creates it anew" in lost.reason
    assert (anew.event, anew.uid not in {created.uid, lost.uid}) == ("created", True)
    assert anew.payload["status"] == "sent", "it is taken from the database, now"
    assert RemoteObject.objects.get().remote_id == "c-3"
    assert Attempt.objects.get(delivery=lost).outcome == "recreate"


@pytest.mark.parametrize("snapshot", ["save", "send"])
def test_the_last_call_carries_the_last_state(contact, forgetful, snapshot):
    contact(snapshot=snapshot)
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    for status in ("paid", "packed", "sent"):
        save(order, status)
    attempt()

    told = [(request.method, request.json["status"]) for request in forgetful.requests[1:]]
    lost, anew, *rest = told
    assert (lost[0], anew) == ("PATCH", ("POST", "sent"))
    between = [("PATCH", "packed")] if snapshot == "save" else [("PATCH", "sent")]
    assert rest == [*between, ("PATCH", "sent")], "what was recorded before is sent as it was"


def test_what_is_saved_while_it_is_created_anew_comes_last(contact, forgetful, monkeypatch):
    contact()
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    save(order, "paid")
    put_first = recreating.put_first

    def save_meanwhile(*arguments):
        save(order, "sent")
        put_first(*arguments)

    monkeypatch.setattr(recreating, "put_first", save_meanwhile)
    attempt()

    told = [(request.method, request.json["status"]) for request in forgetful.requests[1:]]
    assert told == [("PATCH", "paid"), ("POST", "paid"), ("PATCH", "sent")]


def test_a_second_time_in_a_row_it_is_failed(contact, receiver):
    contact(remote_id="")
    receiver.reply(404)
    Order.objects.create(number="A-1")
    attempt()

    assert calls(receiver) == ["POST /orders", "POST /orders"]
    assert [d.state for d in rows()] == ["failed", "failed"]
    assert "again" in rows()[1].reason
    assert rows()[1].replaced_by_id is None


def test_lost_again_later_it_is_created_again(contact, forgetful):
    contact()
    order = Order.objects.create(number="A-1")
    attempt()
    for status in ("paid", "sent"):
        forgetful.known.clear()
        save(order, status)
        attempt()

    assert [d.state for d in rows()] == ["delivered", *["failed", "delivered"] * 2]


def test_where_the_object_is_gone_nothing_is_created(contact, forgetful):
    contact(on=[Event.CREATED, Event.UPDATED])
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    save(order, "paid")
    order.delete()
    attempt()

    assert calls(forgetful) == ["POST /orders", "PATCH /orders/c-1"]
    assert "gone here" in rows()[1].reason


def test_what_can_t_be_built_is_failed_and_says_why(contact, forgetful):
    made = contact()
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    save(order, "paid")
    made.get_payload = get_payload
    attempt()

    assert [d.state for d in rows()] == ["delivered", "failed", "failed"]
    assert "get_payload() raised ZeroDivisionError" in rows()[2].reason
    assert not RemoteObject.objects.exists()


def test_under_test_what_can_t_be_built_raises(contact, forgetful):
    made = contact()
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    save(order, "paid")
    made.get_payload = get_payload

    with pytest.raises(ZeroDivisionError):
        attempt(raising=True)


@pytest.mark.parametrize("raises", [False, True])
def test_handle_failure_is_called_with_it_and_can_t_undo_it(contact, forgetful, raises):
    handled = []

    def handle_failure(dispatch, delivery, attempt):
        handled.append((delivery.state, delivery.error_class))
        if raises:
            raise RuntimeError("oh no")

    contact(handle_failure=handle_failure)
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    save(order, "paid")
    attempt()

    assert handled == [("failed", "lost")]
    assert [d.state for d in rows()] == ["delivered", "failed", "delivered"]
    assert ("oh no" in rows()[1].reason) == raises


def test_receivers_hear_of_the_new_delivery(contact, forgetful):
    contact()
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    save(order, "paid")
    heard = []

    def note(delivery, **kwargs):
        heard.append(delivery.event)

    delivery_enqueued.connect(note)
    attempt()

    assert heard == ["created"]


def test_the_answer_to_an_old_state_knows_that_it_is_old(contact, forgetful):
    seen = []
    contact(handle_response=lambda self, delivery, response: seen.append(delivery.is_latest))
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    save(order, "paid")
    save(order, "sent")
    attempt()

    assert seen == [True, False, True]


@pytest.mark.django_db(transaction=True)
def test_threads_create_it_anew_too(contact, forgetful, as_in_production):
    contact()
    order = Order.objects.create(number="A-1")
    eventually(RemoteObject.objects.exists)
    forgetful.known.clear()
    save(order, "paid")
    save(order, "sent")
    forgetful.wait_for(4)
    eventually(lambda: not Delivery.objects.unfinished().exists())

    assert calls(forgetful)[1:] == ["PATCH /orders/c-1", "POST /orders", "PATCH /orders/c-3"]


def test_the_test_kit_creates_it_anew_too(contact, deliveries, mock_endpoint):
    contact()
    crm = mock_endpoint("crm")
    crm.reply(201, json={"id": "c-1"}, method="POST", path="orders")
    crm.reply(404, method="PATCH", path="orders/c-1")
    order = Order.objects.create(number="A-1")
    deliveries.send()
    save(order, "paid")
    deliveries.send()

    assert [call.method for call in crm.calls] == ["POST", "PATCH", "POST"]


def test_where_the_object_is_gone_its_id_is_forgotten(contact, forgetful):
    contact()
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    save(order, "paid")
    order.delete()
    attempt()

    assert calls(forgetful) == ["POST /orders", "PATCH /orders/c-1"]
    assert [d.state for d in rows()] == ["delivered", "failed", "cancelled"]
    assert not RemoteObject.objects.exists()


def test_a_delete_of_what_is_lost_publishes_nothing(contact, forgetful):
    contact(get_event=lambda self, order, change: "deleted" if order.status == "out" else "created")
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    save(order, "out")
    attempt()

    assert calls(forgetful) == ["POST /orders", "DELETE /orders/c-1"]
    assert rows()[1].state == "cancelled"


def test_what_the_remote_lost_need_not_be_deleted_there(contact, forgetful):
    handled, finished = [], []
    contact(handle_failure=lambda self, delivery, attempt: handled.append(delivery))
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    order.delete()
    receive = connected(delivery_finished, finished)
    attempt()
    delivery_finished.disconnect(receive)

    deleted = rows()[1]
    assert calls(forgetful) == ["POST /orders", "DELETE /orders/c-1"]
    assert (deleted.state, deleted.error_class, deleted.last_status) == ("cancelled", "", 404)
    assert deleted.reason == recreating.GONE_THERE
    assert Attempt.objects.get(delivery=deleted).outcome == "recreate"
    assert not RemoteObject.objects.exists()
    assert (handled, finished) == ([], [deleted])


def test_a_lease_that_is_lost_meanwhile_leaves_the_id(contact, forgetful):
    def judge(dispatch, delivery, response):
        if response.status_code == 404:
            Delivery.objects.filter(pk=delivery.pk).update(epoch=9, held_by="another")
        return anew_where_it_is_lost(dispatch, delivery, response)

    contact(get_outcome=judge)
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    order.delete()
    attempt()

    assert (rows()[1].state, rows()[1].epoch) == ("pending", 9)
    assert RemoteObject.objects.exists()
    assert Attempt.objects.filter(delivery=rows()[1]).count() == 1, "the call was made"


def test_a_database_that_fails_in_between_costs_no_second_call(contact, forgetful, monkeypatch):
    contact()
    order = Order.objects.create(number="A-1")
    attempt()
    forgetful.known.clear()
    save(order, "paid")
    put_first = recreating.put_first

    def fail_once(*arguments):
        monkeypatch.setattr(recreating, "put_first", put_first)
        raise OperationalError("gone away")

    monkeypatch.setattr(recreating, "put_first", fail_once)
    attempt()
    assert rows()[1].handler_tries == 1
    attempt()

    assert calls(forgetful) == ["POST /orders", "PATCH /orders/c-1", "POST /orders"]
    assert [d.state for d in rows()] == ["delivered", "failed", "delivered"]
