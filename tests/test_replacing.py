"""``latest_wins``: a newer delivery replaces those of its lane that still wait."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import transaction

from signal_dispatch import Event, RetryPolicy, enqueue, replacing
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.replacing import REPLACED
from tests.deliveries import attempt_of
from tests.savepoints import create as savepoint
from tests.shop.models import Order, Tag
from tests.waiting import eventually

pytestmark = pytest.mark.django_db


@pytest.fixture
def latest(declare):
    return declare(
        Order,
        fields=["number", "status"],
        path={"created": "orders", "updated": "orders/{number}", "deleted": "orders/{number}"},
        method={"created": "POST", "updated": "PUT", "deleted": "DELETE"},
        latest_wins=True,
    )


def rows(**wanted):
    return list(Delivery.objects.filter(**wanted).order_by("id"))


def seen():
    """Return each row's event, state, and which one replaced it, counted from 0."""
    numbers = {d.pk: position for position, d in enumerate(rows())}
    return [(d.event, d.state, numbers.get(d.replaced_by_id)) for d in rows()]


def leave(delivery, **values):
    Delivery.objects.filter(pk=delivery.pk).update(**values)


def hold(delivery):
    leave(delivery, held_by="another", epoch=1, available_at=DatabaseNow(60))


def settle(delivery, state="delivered", **values):
    attempt_of(delivery, number=1).save()
    leave(delivery, state=state, available_at=None, held_by="", attempts=1, **values)


def save(order, status):
    order.status = status
    order.save()


def test_a_newer_delivery_replaces_the_ones_that_wait(latest):
    order = Order.objects.create(number="A-1")
    hold(*rows())
    save(order, "paid")
    save(order, "packed")
    save(order, "sent")

    assert seen() == [
        ("created", "pending", None),
        ("updated", "cancelled", 2),
        ("updated", "cancelled", 3),
        ("updated", "waiting", None),
    ]
    replaced = rows(state="cancelled")[0]
    assert (replaced.reason, replaced.finished_at is None, replaced.epoch) == (REPLACED, False, 1)
    assert rows()[-1].payload["status"] == "sent"


def test_one_under_lease_stays(latest):
    order = Order.objects.create(number="A-1")
    settle(*rows())
    save(order, "paid")
    hold(rows()[1])
    save(order, "sent")

    assert [state for _event, state, _by in seen()] == ["delivered", "pending", "waiting"]


def test_one_that_waits_for_its_retry_is_replaced(latest):
    order = Order.objects.create(number="A-1")
    settle(*rows())
    save(order, "paid")
    leave(rows()[1], attempts=1, available_at=DatabaseNow(600))
    save(order, "sent")

    assert seen()[1:] == [("updated", "cancelled", 2), ("updated", "pending", None)]


def test_a_save_does_not_cut_the_wait_for_a_retry_short(latest, as_in_production):
    order = Order.objects.create(number="A-1")
    settle(*rows())
    save(order, "paid")
    leave(rows()[1], attempts=3, held_by="", available_at=DatabaseNow(600), last_status=503)
    due = rows()[1].available_at
    for status in ("packed", "sent"):
        save(order, status)

    heir = rows()[3]
    assert (heir.state, heir.held_by) == ("pending", "")
    assert timedelta() <= heir.available_at - due < timedelta(seconds=60)
    assert (heir.attempts, heir.handler_tries, heir.last_status, heir.reason) == (0, 0, None, "")


def test_nor_does_a_save_while_it_waits_behind_another(latest):
    order = Order.objects.create(number="A-1")
    hold(*rows())
    save(order, "paid")
    leave(rows()[1], not_before=DatabaseNow(600))
    due = rows()[1].not_before
    save(order, "sent")

    assert [state for _event, state, _by in seen()] == ["pending", "cancelled", "waiting"]
    assert timedelta() <= rows()[2].not_before - due < timedelta(seconds=60)


def test_what_was_due_already_makes_nobody_wait(latest):
    order = Order.objects.create(number="A-1")
    settle(*rows())
    save(order, "paid")
    leave(rows()[1], attempts=1, available_at=DatabaseNow(-600))
    save(order, "sent")

    assert rows()[2].not_before is None
    assert seconds_after_recording(rows()[2]) == 0


def test_one_whose_answer_is_kept_stays(latest):
    order = Order.objects.create(number="A-1")
    leave(*rows(), attempts=1, handler_tries=1, available_at=DatabaseNow(600))
    save(order, "paid")

    assert seen() == [("created", "pending", None), ("updated", "waiting", None)]


def test_one_whose_lease_ran_out_is_replaced(latest):
    order = Order.objects.create(number="A-1")
    settle(*rows())
    save(order, "paid")
    leave(rows()[1], held_by="dead", epoch=1, available_at=DatabaseNow(-1))
    save(order, "sent")

    assert seen()[1:] == [("updated", "cancelled", 2), ("updated", "pending", None)]
    assert rows()[1].epoch == 2, "its old holder is fenced"


def test_a_created_that_was_never_delivered_passes_its_event_on(latest):
    order = Order.objects.create(number="A-1")
    save(order, "paid")
    save(order, "sent")

    assert seen() == [
        ("created", "cancelled", 1),
        ("created", "cancelled", 2),
        ("created", "pending", None),
    ]
    last = rows()[-1]
    assert (last.method, last.path, last.payload["status"]) == ("POST", "orders", "sent")


def test_a_created_that_is_under_way_keeps_its_event(latest):
    order = Order.objects.create(number="A-1")
    hold(*rows())
    save(order, "paid")

    assert [event for event, _state, _by in seen()] == ["created", "updated"]
    assert (rows()[1].method, rows()[1].path) == ("PUT", "orders/A-1")


def test_deleted_cancels_the_created_and_itself_where_nothing_was_attempted(latest):
    order = Order.objects.create(number="A-1")
    save(order, "paid")
    order.delete()

    assert seen() == [
        ("created", "cancelled", 1),
        ("created", "cancelled", 2),
        ("deleted", "cancelled", None),
    ]
    assert "never heard" in rows()[-1].reason
    assert rows()[-1].finished_at is not None


@pytest.mark.parametrize(
    "tried",
    [
        {"attempts": 1, "available_at": DatabaseNow(600)},
        {"held_by": "dead", "epoch": 1, "available_at": DatabaseNow(-1)},
    ],
    ids=["answered with an error", "perhaps by a process that is gone"],
)
@pytest.mark.parametrize("between", [False, True], ids=["at once", "after an update"])
def test_deleted_is_sent_where_the_created_was_attempted(latest, tried, between):
    order = Order.objects.create(number="A-1")
    leave(*rows(), **tried)
    if between:
        save(order, "paid")
    order.delete()

    last = rows()[-1]
    assert (last.event, last.state, last.method) == ("deleted", "pending", "DELETE")


def test_deleted_is_sent_where_the_created_was_attempted_just_now(latest, monkeypatch):
    order = Order.objects.create(number="A-1")
    (created,) = rows()
    cancel = replacing._cancel

    def cancel_late(found, waiting):
        # Tried and given back between the look and the cancel, or after an older snapshot.
        leave(created, attempts=1, epoch=1, available_at=DatabaseNow(600))
        return cancel(found, waiting)

    monkeypatch.setattr(replacing, "_cancel", cancel_late)
    order.delete()

    last = rows()[-1]
    assert (last.event, last.state, last.method) == ("deleted", "pending", "DELETE")


def test_deleted_waits_for_a_created_under_lease(latest):
    order = Order.objects.create(number="A-1")
    hold(*rows())
    save(order, "paid")
    order.delete()

    assert seen() == [
        ("created", "pending", None),
        ("updated", "cancelled", 2),
        ("deleted", "waiting", None),
    ]


def test_own_events_neither_replace_nor_are_replaced(declare):
    declare(Order, on=[Event.UPDATED, "refunded"], latest_wins=True)
    order = Order.objects.create(number="A-1")
    save(order, "paid")
    enqueue(order, "refunded")
    save(order, "packed")
    save(order, "sent")

    assert seen() == [
        ("updated", "pending", None),
        ("refunded", "waiting", None),
        ("updated", "cancelled", 3),
        ("updated", "waiting", None),
    ]


def test_each_endpoint_has_its_own_lane(latest, monkeypatch):
    monkeypatch.setattr(latest, "get_endpoint", lambda *_: ["crm", "hubspot"])
    order = Order.objects.create(number="A-1")
    hold(rows(endpoint="crm")[0])
    save(order, "paid")

    assert [(d.endpoint, d.event, d.state) for d in rows()] == [
        ("crm", "created", "pending"),
        ("hubspot", "created", "cancelled"),
        ("crm", "updated", "waiting"),
        ("hubspot", "created", "pending"),
    ]


def test_without_latest_wins_nothing_is_replaced(declare):
    declare(Order)
    order = Order.objects.create(number="A-1")
    save(order, "paid")

    assert [state for _event, state, _by in seen()] == ["pending", "waiting"]


def test_what_could_not_be_built_replaces_nothing(latest, as_in_production, monkeypatch):
    order = Order.objects.create(number="A-1")
    monkeypatch.setattr(latest, "get_payload", lambda *_: 1 / 0)
    save(order, "paid")

    assert [state for _event, state, _by in seen()] == ["pending", "failed"]


def test_enqueue_replaces_too(latest):
    for number in range(3):
        Order.objects.create(number=f"A-{number}")
    Order.objects.update(status="paid")
    assert enqueue(Order.objects.all()) == 3

    assert [state for _event, state, _by in seen()] == ["cancelled"] * 3 + ["pending"] * 3
    assert {(d.event, d.payload["status"]) for d in rows(state="pending")} == {("created", "paid")}


# In one transaction


def test_within_a_transaction_the_heir_keeps_what_it_took_over(latest):
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        save(order, "paid")
        save(order, "sent")

    assert seen() == [("created", "cancelled", 1), ("created", "pending", None)]
    assert (rows()[1].method, rows()[1].payload["status"]) == ("POST", "sent")


def test_an_heir_that_is_deleted_in_its_transaction_is_cancelled(latest):
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        save(order, "paid")
        order.delete()

    assert [state for _event, state, _by in seen()] == ["cancelled", "cancelled"]
    assert rows()[1].event == "deleted"


def test_a_savepoint_that_is_rolled_back_brings_the_replaced_back(latest):
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        before = savepoint()
        save(order, "paid")
        transaction.savepoint_rollback(before)
        assert seen() == [("created", "pending", None)]
        save(order, "sent")

    assert seen() == [("created", "cancelled", 1), ("created", "pending", None)]
    assert rows()[1].payload["status"] == "sent"


def test_an_heir_that_is_withdrawn_lets_the_replaced_wait_again(latest, monkeypatch):
    monkeypatch.setattr(latest, "should_send", lambda self, order, change: order.status != "draft")
    order = Order.objects.create(number="A-1", status="paid")
    settle(*rows())
    save(order, "packed")
    with transaction.atomic():
        save(order, "sent")
        save(order, "draft")

    assert seen()[1:] == [("updated", "waiting", None)]
    row = rows()[1]
    assert (row.reason, row.finished_at, row.payload["status"]) == ("", None, "packed")


def test_the_restored_is_sent(latest, monkeypatch, deliveries, mock_endpoint):
    crm = mock_endpoint("crm")
    crm.reply(200)
    monkeypatch.setattr(latest, "should_send", lambda self, order, change: order.status != "draft")
    order = Order.objects.create(number="A-1", status="paid")
    with transaction.atomic():
        save(order, "sent")
        save(order, "draft")
    deliveries.send()

    assert [call.json["status"] for call in crm.calls] == ["paid"]


def test_only_the_last_state_is_sent(latest, deliveries, mock_endpoint):
    crm = mock_endpoint("crm")
    crm.reply(200)
    order = Order.objects.create(number="A-1")
    for status in ("paid", "packed", "sent"):
        save(order, status)
    deliveries.send()

    assert [(call.method, call.json["status"]) for call in crm.calls] == [("POST", "sent")]
    assert Attempt.objects.count() == 1


def test_relations_replace_too(declare):
    declare(Order, fields=["tags"], on=[Event.UPDATED], m2m_fields=["tags"], latest_wins=True)
    order, tags = Order.objects.create(number="A-1"), [Tag.objects.create() for _ in range(2)]
    for tag in tags:
        order.tags.add(tag)

    assert [state for _event, state, _by in seen()] == ["cancelled", "pending"]
    assert rows()[1].payload["tags"] == [tag.pk for tag in tags]


# delay


def seconds_after_recording(delivery, column="available_at"):
    return round((getattr(delivery, column) - delivery.created_at).total_seconds())


def test_a_delay_counts_from_the_record_and_leases_nothing(declare, as_in_production):
    declare(Order, delay=30)
    Order.objects.create(number="A-1")

    (row,) = rows()
    assert seconds_after_recording(row) == 30
    assert (row.state, row.held_by) == ("pending", "")


def test_the_delay_of_one_that_waits_is_kept_for_later(declare):
    declare(Order, delay=30)
    order = Order.objects.create(number="A-1")
    save(order, "paid")

    assert rows()[1].available_at is None
    assert seconds_after_recording(rows()[1], "not_before") == 30


def test_enqueued_in_bulk_they_are_delayed_too(declare):
    declare(Order, delay=30)
    Order.objects.bulk_create([Order(number="A-1"), Order(number="A-2")])
    enqueue(Order.objects.all())

    assert [seconds_after_recording(row) for row in rows()] == [30, 30]
    assert [seconds_after_recording(row, "not_before") for row in rows()] == [30, 30]


def test_the_longer_of_delay_and_policy_holds(declare):
    declare(Order, delay=5, retry=RetryPolicy([40], jitter=0))
    Order.objects.create(number="A-1")

    assert seconds_after_recording(*rows()) == 40


def test_each_replacement_starts_the_delay_again(declare):
    declare(Order, delay=30, latest_wins=True)
    order = Order.objects.create(number="A-1")
    leave(*rows(), created_at=DatabaseNow(-20), available_at=DatabaseNow(10))
    save(order, "paid")

    assert seen() == [("created", "cancelled", 1), ("created", "pending", None)]
    assert seconds_after_recording(rows()[1]) == 30


@pytest.mark.django_db(transaction=True)
def test_a_burst_of_saves_is_one_call_after_the_delay(declare, receiver, as_in_production):
    declare(Order, fields=["status"], delay=0.5, latest_wins=True, on=[Event.UPDATED])
    order = Order.objects.create(number="A-1")
    for number in range(20):
        save(order, f"state {number}")
    (request,) = receiver.wait_for(1)
    eventually(lambda: not Delivery.objects.unfinished().exists())

    assert request.json["status"] == "state 19"
    assert len(receiver.requests) == 1


@pytest.mark.django_db(transaction=True)
def test_one_that_waits_is_sent_when_its_delay_is_over(declare, receiver, as_in_production):
    declare(Order, fields=["status"], delay=0.3)
    order = Order.objects.create(number="A-1")
    save(order, "paid")
    receiver.wait_for(2)
    eventually(lambda: not Delivery.objects.unfinished().exists())

    assert [request.json["status"] for request in receiver.requests] == ["draft", "paid"]
    with_delay = [
        (a.started_at - a.delivery.created_at).total_seconds()
        for a in Attempt.objects.select_related("delivery")
    ]
    assert all(seconds >= 0.28 for seconds in with_delay)


# What stands first, and what is another object's


def test_what_creates_anew_is_replaced_as_the_head_that_it_is(declare):
    declare(Order, on=[Event.UPDATED, "refunded"], latest_wins=True)
    order = Order.objects.create(number="A-1")
    save(order, "paid")
    hold(*rows())
    enqueue(order, "refunded")
    # As recreate() leaves it: the head has the highest number.
    head = rows()[0]
    leave(head, state="failed", available_at=None)
    anew = Delivery.objects.get(pk=head.pk)
    anew.pk, anew.uid, anew.state, anew.event = None, uuid4(), "pending", "created"
    anew.held_by, anew.available_at = "", DatabaseNow()
    anew.save()
    save(order, "sent")

    states = [(d.event, d.state) for d in rows()[1:]]
    assert states == [("refunded", "waiting"), ("created", "pending"), ("updated", "waiting")]


def test_what_is_created_under_a_deleted_key_replaces_nothing_of_the_other(latest):
    order = Order.objects.create(number="A-1")
    settle(*rows())
    pk = order.pk
    order.delete()
    Order.objects.create(pk=pk, number="B-1")

    assert [(event, state) for event, state, _by in seen()] == [
        ("created", "delivered"),
        ("deleted", "pending"),
        ("created", "waiting"),
    ]


def test_what_waits_again_keeps_the_time_that_it_had_to_wait(latest, monkeypatch):
    monkeypatch.setattr(latest, "should_send", lambda self, order, change: order.status != "draft")
    order = Order.objects.create(number="A-1", status="paid")
    settle(*rows())
    save(order, "packed")
    leave(rows()[1], attempts=1, available_at=DatabaseNow(3600))
    with transaction.atomic():
        save(order, "sent")
        save(order, "draft")

    row = rows()[1]
    assert row.state == "waiting"
    assert (row.not_before - row.created_at).total_seconds() > 3500


def test_captured_hooks_heed_the_delay(declare, mock_endpoint, django_capture_on_commit_callbacks):
    declare(Order, fields=["status"], delay=30, latest_wins=True)
    crm = mock_endpoint("crm")
    crm.reply(200)
    with django_capture_on_commit_callbacks(execute=True):
        Order.objects.create(number="A-1")

    assert crm.calls == []
    assert [state for _event, state, _by in seen()] == ["pending"]
