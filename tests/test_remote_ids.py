"""Ids that the remote gives out: never a call on the wrong URL."""

import json

import pytest

from signal_dispatch import ModelDispatch, RetryPolicy, enqueue
from signal_dispatch.models import Delivery, RemoteObject
from tests.receiver import Receiver
from tests.sending import attempt
from tests.shop.models import Order

pytestmark = pytest.mark.django_db

CONTACTS = {
    "path": {
        "created": "contacts",
        "updated": "contacts/{remote_id}",
        "deleted": "contacts/{remote_id}",
    },
    "method": {"created": "POST", "updated": "PATCH", "deleted": "DELETE"},
    "remote_id": "id",
    "retry": RetryPolicy([0, 1, 1], jitter=0),
}


@pytest.fixture
def contacts(receiver: Receiver) -> Receiver:
    """Answer as an API that gives out ids."""
    receiver.script = lambda request: (201, {}, json.dumps({"id": "c/7"}).encode())
    return receiver


def calls(receiver):
    return [(r.method, r.path) for r in receiver.requests]


def test_create_update_and_delete_go_where_the_id_says(declare, contacts):
    declare(Order, **CONTACTS)
    order = Order.objects.create(number="A-1")
    order.status = "paid"
    order.save()
    order.delete()
    attempt()

    assert calls(contacts) == [
        ("POST", "/contacts"),
        ("PATCH", "/contacts/c%2F7"),
        ("DELETE", "/contacts/c%2F7"),
    ]
    assert not RemoteObject.objects.exists(), "forgotten once the delete is delivered"
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


def test_the_id_is_kept_with_the_mark(declare, contacts):
    declare(Order, **CONTACTS)
    order = Order.objects.create(number="A-1")
    attempt()

    (kept,) = RemoteObject.objects.all()
    assert (kept.remote_id, kept.object_pk, kept.model) == ("c/7", order.pk, "shop.order")


def test_an_id_of_another_environment_is_left_alone(declare, contacts, settings):
    declare(Order, **CONTACTS)
    order = Order.objects.create(number="A-1")
    attempt()
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"  # with a copy of all rows
    contacts.script = lambda request: (201, {}, b'{"id": "s-1"}')
    for _ in range(2):
        order.save()
        attempt()
    order.delete()
    attempt()

    assert calls(contacts)[1:] == [
        ("POST", "/contacts"),
        ("PATCH", "/contacts/s-1"),
        ("DELETE", "/contacts/s-1"),
    ]
    assert list(RemoteObject.objects.values_list("environment", "remote_id")) == [("", "c/7")]


def test_an_id_that_is_kept_by_hand_is_of_the_own_environment(settings):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"

    assert RemoteObject(remote_id="c-7").environment == "staging"


def test_an_update_of_an_object_that_is_unknown_there_creates_it(declare, contacts):
    declare(Order, **CONTACTS, on=["updated"])
    order = Order.objects.create(number="A-1")
    order.save()
    attempt()
    order.save()
    attempt()

    assert calls(contacts) == [("POST", "/contacts"), ("PATCH", "/contacts/c%2F7")]
    assert list(Delivery.objects.order_by("id").values_list("event", "path")) == [
        ("created", "contacts"),
        ("updated", "contacts/c%2F7"),
    ]


def test_after_a_create_that_failed_the_next_update_creates(declare, contacts):
    declare(Order, **CONTACTS)
    order = Order.objects.create(number="A-1")
    order.status = "paid"
    order.save()
    script, contacts.script = contacts.script, lambda request: (400, {}, b"")
    attempt_head_only = Delivery.objects.earliest("id")
    attempt()
    attempt_head_only.refresh_from_db()
    assert attempt_head_only.state == "failed"
    contacts.script = script
    order.save()
    attempt()

    assert [r.method for r in contacts.requests] == ["POST", "POST", "POST"]
    assert RemoteObject.objects.count() == 1


def test_a_delete_of_what_was_never_there_is_cancelled(declare, contacts):
    declare(Order, **CONTACTS, on=["deleted"])
    Order.objects.create(number="A-1").delete()
    attempt()

    assert calls(contacts) == []
    made = Delivery.objects.get()
    assert (made.state, made.attempts) == ("cancelled", 0)
    assert "never knew" in made.reason


def test_an_update_of_an_object_gone_on_both_sides_is_cancelled(declare, contacts):
    declare(Order, **CONTACTS, on=["updated"])
    order = Order.objects.create(number="A-1")
    order.save()
    order.delete()
    attempt()

    assert calls(contacts) == []
    assert Delivery.objects.get().state == "cancelled"


def test_an_own_event_without_an_id_is_failed(declare, contacts):
    declare(Order, **CONTACTS | {"path": "contacts/{remote_id}/notes", "method": "POST"}, on=["n"])
    order = Order.objects.create(number="A-1")
    enqueue(order, event="n")
    attempt()

    made = Delivery.objects.get()
    assert (made.state, made.error_class) == ("failed", "build")
    assert "remote's id" in made.reason
    assert calls(contacts) == []


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b"not json",
        b'{"id": null}',
        b'{"id": ""}',
        b'{"id": {"a": 1}}',
        b'{"id": [7]}',
        b'{"id": true}',
    ],
)
def test_an_answer_without_the_id_is_failed_and_kept(declare, contacts, body):
    declare(Order, **CONTACTS)
    Order.objects.create(number="A-1")
    contacts.script = lambda request: (201, {}, body)
    attempt()

    made = Delivery.objects.get()
    assert (made.state, made.error_class) == ("failed", "handler")
    assert "no id at 'id'" in made.reason
    assert bytes(made.attempt_set.get().response_body) == body


def test_an_error_in_get_remote_id_is_called_by_its_name(declare, contacts):
    class Broken(ModelDispatch):
        def get_remote_id(self, delivery, response):
            raise AttributeError("bug")

    declare(Order, **CONTACTS | {"remote_id": ""}, base=Broken)
    Order.objects.create(number="A-1")
    attempt()

    assert Delivery.objects.get().reason == "shop.Told: get_remote_id() raised AttributeError: bug"


def test_a_dotted_path_and_a_hook_find_the_id(declare, contacts):
    contacts.script = lambda request: (200, {"X-Id": "h-1"}, b'{"data": [{"id": 12}]}')
    declare(Order, **CONTACTS | {"remote_id": "data.0.id"})

    class Headed(ModelDispatch):
        def get_remote_id(self, delivery, response):
            return response.headers["X-Id"]

    declare(Order, **CONTACTS | {"remote_id": ""}, name="shop.Headed", base=Headed)
    Order.objects.create(number="A-1")
    attempt()

    kept = RemoteObject.objects.order_by("dispatch").values_list("dispatch", "remote_id")
    assert list(kept) == [("shop.Headed", "h-1"), ("shop.Told", "12")]


def test_each_retry_is_the_same_call(declare, contacts):
    declare(Order, **CONTACTS)
    order = Order.objects.create(number="A-1")
    attempt()
    order.save()
    contacts.script = lambda request: (500, {}, b"")
    attempt()
    RemoteObject.objects.update(remote_id="another")
    attempt()

    assert calls(contacts)[1:] == [("PATCH", "/contacts/c%2F7")] * 2


def test_where_no_call_can_be_made_of_it_the_delivery_is_failed(declare, contacts):
    declare(Order, **CONTACTS | {"method": {"updated": "PATCH"}}, on=["updated"])
    order = Order.objects.create(number="A-1")
    order.save()
    attempt()

    made = Delivery.objects.get()
    assert (made.state, made.error_class) == ("failed", "build")
    assert "no entry for the event 'created'" in made.reason


def test_an_id_that_would_leave_the_path_is_failed(declare, contacts):
    declare(Order, **CONTACTS)
    order = Order.objects.create(number="A-1")
    contacts.script = lambda request: (201, {}, b'{"id": ".."}')
    attempt()
    order.save()
    attempt()

    assert Delivery.objects.latest("id").state == "failed"
    assert len(contacts.requests) == 1


def test_braces_in_a_value_are_not_taken_for_the_id(declare, contacts):
    paths = {"created": "c", "updated": "c/{number}/{remote_id}", "deleted": "c/{remote_id}"}
    declare(Order, **CONTACTS | {"path": paths})
    order = Order.objects.create(number="{remote_id}")
    order.save()
    attempt()

    assert calls(contacts)[1] == ("PATCH", "/c/%7Bremote_id%7D/c%2F7")
