"""One object, one transaction, one delivery with the net effect."""

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from signal_dispatch import Event, ModelDispatch, enqueue
from signal_dispatch.models import Delivery
from tests import savepoints
from tests.shop.models import Order


@pytest.fixture(
    params=[
        pytest.param("real commits", marks=pytest.mark.django_db(transaction=True)),
        pytest.param("inside a test case", marks=pytest.mark.django_db),
    ]
)
def database(request):
    """Run a test in a transaction of its own, and within a test case's."""
    return request.param


pytestmark = pytest.mark.usefixtures("database")


def told():
    rows = Delivery.objects.order_by("id")
    return [(d.event, d.payload["status"] if d.body else None) for d in rows]


def save(order, status):
    order.status = status
    order.save()


def test_created_and_updated_is_created_with_the_last_state(declare):
    declare(Order)
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
        save(order, "paid")
        save(order, "sent")

    assert told() == [("created", "sent")]


def test_several_updates_are_one(declare):
    declare(Order)
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        save(order, "paid")
        with transaction.atomic():
            save(order, "sent")

    assert told() == [("created", "draft"), ("updated", "sent")]


def test_without_a_transaction_nothing_merges(declare):
    declare(Order)
    order = Order.objects.create(number="A-1")
    save(order, "paid")
    save(order, "sent")

    assert told() == [("created", "draft"), ("updated", "paid"), ("updated", "sent")]


def test_two_transactions_do_not_merge(declare):
    declare(Order)
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
    with transaction.atomic():
        save(order, "paid")
    save_twice = transaction.atomic(save)
    save_twice(order, "sent")
    save_twice(order, "back")

    assert [event for event, _status in told()] == ["created", "updated", "updated", "updated"]


def test_created_and_deleted_is_nothing(declare):
    declare(Order)
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
        save(order, "paid")
        order.delete()

    assert told() == []


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside one that hears of saves"])
def test_who_hears_of_deletes_only_does_not_hear_of_what_never_was(declare, beside):
    if beside:
        declare(Order, name="shop.Saved", on=[Event.UPDATED])
    declare(Order, on=[Event.DELETED])
    old = Order.objects.create(number="A-0")
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
        with CaptureQueriesContext(connection) as queries:
            brief = Order.objects.create(number="A-2")
        save(order, "paid")
        order.delete()
        brief.delete()
        pk = old.pk
        old.delete()

    assert list(Delivery.objects.filter(dispatch="shop.Told").values_list("object_pk")) == [(pk,)]
    assert len(queries) == 1, "the note of it costs no statement"


def test_updated_and_deleted_is_deleted(declare):
    declare(Order, method={"created": "POST", "updated": "PATCH", "deleted": "DELETE"})
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        save(order, "paid")
        order.delete()

    assert told() == [("created", "draft"), ("deleted", None)]
    assert Delivery.objects.latest("id").method == "DELETE"


def test_deleted_and_created_again_do_not_merge(declare):
    declare(Order)
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        pk = order.pk
        order.delete()
        Order.objects.create(pk=pk, number="A-1", status="new")

    assert [event for event, _status in told()] == ["created", "deleted", "created"]


def test_a_draft_that_is_paid_is_created(declare):
    class Paid(ModelDispatch):
        def should_send(self, order, change):
            return order.status != "draft"

    declare(Order, base=Paid)
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
        save(order, "paid")

    assert told() == [("created", "paid")]


def test_paid_and_back_to_draft_is_nothing(declare):
    class Paid(ModelDispatch):
        def should_send(self, order, change):
            return order.status != "draft"

    declare(Order, base=Paid)
    with transaction.atomic():
        order = Order.objects.create(number="A-1", status="paid")
        save(order, "draft")
    assert told() == []
    with transaction.atomic():
        save(order, "paid")
        save(order, "draft")
        save(order, "paid")
    assert told() == [("updated", "paid")]


def test_on_judges_the_net_event(declare):
    declare(Order, on=[Event.UPDATED])
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
        save(order, "paid")

    assert told() == []


def test_a_change_that_would_be_ignored_refreshes_what_is_recorded(declare):
    declare(Order, when_changed=["status"], fields=["status", "notes"])
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        order.notes = "ignored"
        order.save()
        assert Delivery.objects.count() == 1
        save(order, "paid")
        order.notes = "refreshed"
        order.save()

    last = Delivery.objects.latest("id")
    assert (Delivery.objects.count(), last.payload["notes"]) == (2, "refreshed")


def test_a_change_that_would_be_ignored_does_not_withdraw_what_was_asked_for(declare):
    declare(Order, when_changed=["status"])
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        enqueue(order)
        order.notes = "ignored"
        order.save()

    assert told() == [("created", "draft"), ("updated", "draft")]


def test_an_early_change_that_was_not_sent_still_counts(declare):
    class Approved(ModelDispatch):
        def should_send(self, order, change):
            return order.notes == "approved"

    declare(Order, base=Approved, when_changed=["status"])
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        save(order, "paid")
        order.notes = "approved"
        order.save()

    assert told() == [("updated", "paid")]


def test_what_a_savepoint_took_back_does_not_make_an_ignored_change_count(declare):
    declare(Order, when_changed=["status"])
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        Order.objects.create(number="A-2")
        sid = savepoints.create()
        save(order, "gone")
        transaction.savepoint_rollback(sid)
        order.status = "draft"
        order.notes = "ignored"
        order.save()

    assert told() == [("created", "draft"), ("created", "draft")]


def test_old_values_are_those_before_the_transaction(declare):
    seen = []

    class Looking(ModelDispatch):
        def should_send(self, order, change):
            seen.append(change.old.get("status"))
            return True

    declare(Order, base=Looking, track=["status"])
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        save(order, "paid")
        save(order, "sent")

    assert seen == [None, "draft", "draft"]


@pytest.mark.parametrize("low_level", [False, True])
def test_what_a_savepoint_took_back_is_not_told(declare, low_level):
    declare(Order)
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        save(order, "paid")
        if low_level:
            sid = savepoints.create()
            save(order, "gone")
            transaction.savepoint_rollback(sid)
        else:
            with pytest.raises(RuntimeError), transaction.atomic():
                save(order, "gone")
                raise RuntimeError

    assert told() == [("created", "draft"), ("updated", "paid")]


@pytest.mark.parametrize("low_level", [False, True])
@pytest.mark.parametrize("was_there", [False, True])
def test_a_delete_that_a_savepoint_took_back_does_not_split_the_delivery(
    declare, low_level, was_there
):
    declare(Order)
    if was_there:
        Order.objects.bulk_create([Order(number="A-1")])
    with transaction.atomic():
        order = Order.objects.get() if was_there else Order.objects.create(number="A-1")
        save(order, "paid")
        if low_level:
            sid = savepoints.create()
            Order.objects.get().delete()
            transaction.savepoint_rollback(sid)
        else:
            with pytest.raises(RuntimeError), transaction.atomic():
                Order.objects.get().delete()
                raise RuntimeError
        save(order, "sent")

    assert told() == [("updated" if was_there else "created", "sent")]


@pytest.mark.parametrize("low_level", [False, True])
def test_a_row_that_a_savepoint_took_back_is_written_again(declare, low_level):
    declare(Order)
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        if low_level:
            sid = savepoints.create()
            save(order, "gone")
            transaction.savepoint_rollback(sid)
        else:
            with pytest.raises(RuntimeError), transaction.atomic():
                save(order, "gone")
                raise RuntimeError
        # On SQLite this one gets the number that was given back.
        Order.objects.create(number="A-2")
        save(order, "paid")

    assert told() == [("created", "draft"), ("created", "draft"), ("updated", "paid")]


def test_endpoints_no_longer_named_are_withdrawn_and_new_ones_added(declare):
    class Routed(ModelDispatch):
        def get_endpoint(self, order, change):
            return order.status.split("+")

    declare(Order, base=Routed)
    with transaction.atomic():
        order = Order.objects.create(number="A-1", status="crm")
        save(order, "crm+hubspot")
        save(order, "hubspot")

    assert list(Delivery.objects.values_list("endpoint", flat=True)) == ["hubspot"]


def test_own_events_never_merge(declare):
    declare(Order, on=[Event.UPDATED, "refunded"])
    order = Order.objects.create(number="A-1")
    with transaction.atomic():
        save(order, "paid")
        enqueue(order, event="refunded")
        enqueue(order, event="refunded")
        save(order, "sent")

    assert told() == [("updated", "sent"), ("refunded", "paid"), ("refunded", "paid")]


def test_merge_false_keeps_each(declare):
    declare(Order, merge=False)
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
        save(order, "paid")

    assert told() == [("created", "draft"), ("updated", "paid")]


def test_an_error_that_is_cured_in_the_transaction_leaves_one_good_delivery(
    declare, as_in_production
):
    class Fussy(ModelDispatch):
        def get_payload(self, order, change):
            if order.status == "bad":
                raise ValueError("bad")
            return {"status": order.status}

    declare(Order, base=Fussy, endpoint="nobody")
    with transaction.atomic():
        order = Order.objects.create(number="A-1", status="bad")
        save(order, "good")
    assert told() == [("created", "good")]
    with transaction.atomic():
        save(order, "better")
        save(order, "bad")
    rows = Delivery.objects.order_by("id")
    assert list(rows.values_list("state", flat=True)) == ["pending", "failed"]


def test_rewriting_costs_one_update(declare):
    declare(Order)
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
        with CaptureQueriesContext(connection) as queries:
            save(order, "paid")

    assert [q["sql"].split()[0] for q in queries] == ["UPDATE", "UPDATE"]
