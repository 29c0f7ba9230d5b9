"""``snapshot = "send"``: what a call carries is taken at its first attempt."""

import pytest
from django.db import OperationalError, ProgrammingError, transaction

from signal_dispatch import Event, Outcome, RetryPolicy
from signal_dispatch.backends.console import ConsoleBackend
from signal_dispatch.models import Delivery
from signal_dispatch.queueing import Recorded
from tests.sending import attempt
from tests.shop.models import Order, Shipment, Tag

pytestmark = pytest.mark.django_db


@pytest.fixture
def later(declare):
    def later(**attributes):
        defaults = {
            "fields": ["number", "status"],
            "path": "orders/{number}",
            "snapshot": "send",
            "retry": RetryPolicy([0, 0, 0], jitter=0),
        }
        return declare(Order, **defaults | attributes)

    return later


def rows():
    return list(Delivery.objects.order_by("id"))


def drafts():
    return [(d.event, d.method, d.path, d.payload) for d in rows()]


def test_what_is_saved_after_the_object_is_in_the_call(later, receiver):
    def get_payload(self, order, change):
        return {"shipments": order.shipment_set.count()}

    later(get_payload=get_payload)
    order = Order.objects.create(number="A-1")
    assert drafts() == [("created", "", "", None)]
    Shipment.objects.create(order=order)
    Shipment.objects.create(order=order)
    attempt()

    assert drafts() == [("created", "POST", "orders/A-1", {"shipments": 2})]
    assert receiver.requests[0].json == {"shipments": 2}


def test_headers_and_body_are_frozen_with_the_first_attempt(later, receiver):
    later(get_headers=lambda self, order, change: {"X-Status": order.status})
    order = Order.objects.create(number="A-1")
    receiver.reply(500)
    attempt()
    order.status = "paid"
    Order.objects.update(status="paid")
    receiver.reply(200)
    attempt()

    first, second = receiver.requests
    assert (first.body, first.headers["X-Status"]) == (second.body, "draft")
    assert second.headers["X-Status"] == "draft"


def test_a_first_attempt_that_nobody_recorded_is_repeated_as_it_was(later, receiver):
    later()
    Order.objects.create(number="A-1")
    receiver.reply(500)
    attempt()
    # As after a crash in the middle of the call: what was frozen stands, no attempt does.
    Delivery.objects.update(attempts=0)
    Order.objects.update(status="paid")
    attempt()

    assert receiver.requests[0].body == receiver.requests[1].body


def test_hooks_are_asked_without_old_values(later, receiver):
    seen = []

    def get_payload(self, order, change):
        seen.append((change.event, dict(change.old), order._state.adding, change.using))
        return {}

    later(get_payload=get_payload, track=["status"], on=[Event.UPDATED])
    Order.objects.create(number="A-1").save()
    attempt()

    assert seen == [("updated", {}, False, "default")]


def test_whether_and_where_is_decided_with_the_save(later):
    later(
        should_send=lambda self, order, change: order.status == "paid",
        get_endpoint=lambda self, order, change: "hubspot",
    )
    Order.objects.create(number="A-1")
    Order.objects.create(number="A-2", status="paid")

    assert [(d.object_pk, d.endpoint) for d in rows()] == [(Order.objects.last().pk, "hubspot")]


def test_an_object_that_is_gone_is_cancelled(later, receiver):
    later(on=[Event.CREATED])
    Order.objects.create(number="A-1")
    Order.objects.all().delete()
    attempt()

    (row,) = rows()
    assert (row.state, receiver.requests) == ("cancelled", [])
    assert "gone" in row.reason


def test_deleted_is_taken_before_the_delete(later):
    later(on=[Event.DELETED], method="DELETE")
    Order.objects.create(number="A-1").delete()

    assert [(d.event, d.path) for d in rows()] == [("deleted", "orders/A-1")]


def test_created_then_deleted_while_it_waits_tells_of_the_delete_alone(later, receiver):
    later(method={"created": "POST", "updated": "PUT", "deleted": "DELETE"})
    order = Order.objects.create(number="A-1")
    order.delete()
    attempt()

    assert [d.state for d in rows()] == ["cancelled", "delivered"]
    assert [request.method for request in receiver.requests] == ["DELETE"]


def test_merged_with_a_delete_in_one_transaction_it_is_drafted_at_once(later):
    later(on=[Event.UPDATED, Event.DELETED])
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        order.save()
        order.delete()

    assert [(d.event, d.path) for d in rows()] == [("deleted", "orders/A-1")]


def test_it_is_read_after_its_predecessor_is_settled(later, receiver):
    later(
        fields=["number", "crm_id"],
        handle_response=lambda self, delivery, response: Order.objects.update(crm_id="c-7"),
    )
    order = Order.objects.create(number="A-1")
    order.save()
    attempt()

    assert [r.json["crm_id"] for r in receiver.requests] == ["", "c-7"]


@pytest.mark.parametrize("raising", [False, True])
def test_what_can_t_be_built_is_failed_and_its_handler_called(later, receiver, raising):
    handled = []

    def get_payload(self, order, change):
        return 1 / 0

    later(
        get_payload=get_payload,
        handle_failure=lambda self, delivery, attempt: handled.append((delivery.state, attempt)),
    )
    Order.objects.create(number="A-1")
    if raising:
        with pytest.raises(ZeroDivisionError):
            attempt(raising=True)
        return
    attempt()

    (row,) = rows()
    assert (row.state, row.error_class, receiver.requests) == ("failed", "build", [])
    assert row.reason == "shop.Told: get_payload() raised ZeroDivisionError: division by zero"
    assert handled == [("failed", None)]


@pytest.mark.parametrize("error", [ProgrammingError, OperationalError])
def test_a_query_that_is_wrong_is_the_code_s_fault_and_no_database_is_the_database_s(
    later, receiver, error
):
    def get_payload(self, order, change):
        raise error("no such column")

    later(get_payload=get_payload)
    Order.objects.create(number="A-1")
    if error is OperationalError:  # whoever sends tries it again
        with pytest.raises(OperationalError):
            attempt()
    else:
        attempt()

    assert rows()[0].state == ("failed" if error is ProgrammingError else "pending")


def test_with_latest_wins_the_heir_is_drafted_as_what_it_became(later, receiver):
    later(
        latest_wins=True,
        path={"created": "orders", "updated": "orders/{number}", "deleted": ""},
        method={"created": "POST", "updated": "PUT", "deleted": "DELETE"},
    )
    order = Order.objects.create(number="A-1")
    order.status = "paid"
    order.save()
    attempt()

    assert [(r.method, r.path) for r in receiver.requests] == [("POST", "/orders")]
    assert receiver.requests[0].json["status"] == "paid"


def test_remote_ids_are_known_when_it_is_drafted(later, receiver):
    later(
        remote_id="id",
        path={"created": "orders", "updated": "orders/{remote_id}", "deleted": ""},
        method={"created": "POST", "updated": "PATCH", "deleted": "DELETE"},
    )
    receiver.reply(200, json={"id": "c-7"})
    order = Order.objects.create(number="A-1")
    order.status = "paid"
    order.save()
    attempt()

    assert [f"{r.method} {r.path}" for r in receiver.requests] == [
        "POST /orders",
        "PATCH /orders/c-7",
    ]


def test_what_is_created_anew_is_drafted_when_it_is_sent(later, receiver):
    answers = iter([Outcome.recreate(), None])
    later(get_outcome=lambda self, delivery, response: next(answers))
    Order.objects.create(number="A-1")
    attempt()

    assert [d.state for d in rows()] == ["failed", "delivered"]
    assert rows()[1].payload == {"number": "A-1", "status": "draft"}


def test_relations_of_the_last_moment_are_told(later, receiver):
    later(fields=["tags"], m2m_fields=["tags"])
    order, tag = Order.objects.create(number="A-1"), Tag.objects.create()
    with transaction.atomic():
        order.save()
        order.tags.add(tag)
    attempt()

    assert [r.json["tags"] for r in receiver.requests] == [[tag.pk], [tag.pk]]


def test_the_test_kit_drafts_it_too(later, deliveries, mock_endpoint):
    crm = mock_endpoint("crm")
    crm.reply(200)
    later()
    order = Order.objects.create(number="A-1")
    Order.objects.filter(pk=order.pk).update(status="paid")
    deliveries.send()

    assert crm.calls[0].json["status"] == "paid"


def test_a_row_that_was_recorded_to_be_drafted_late_is_drafted_whatever_is_declared_now(
    later, receiver
):
    made = later()
    Order.objects.create(number="A-1")
    made.snapshot = "save"
    attempt()

    assert [f"{r.method} {r.path}" for r in receiver.requests] == ["POST /orders/A-1"]


def test_the_console_prints_what_would_be_sent(later, capsys):
    later()
    Order.objects.create(number="A-1")
    ConsoleBackend("console").committed([Recorded(rows()[0], "default")], "default", fresh=False)

    assert "POST orders/A-1" in capsys.readouterr().out
    assert rows()[0].state == "delivered"
