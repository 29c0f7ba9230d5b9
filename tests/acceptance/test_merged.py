"""One transaction, one call with its net effect: real commits, and what the remote got."""

import pytest
from django.db import transaction

from signal_dispatch import ModelDispatch
from signal_dispatch.backends import backends
from signal_dispatch.models import Delivery
from tests import savepoints
from tests.settings import DATABASE
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Threads are locked out of an in-memory database.",
    ),
]


class Paid(ModelDispatch):
    """Tell of no draft, and of which event it is."""

    def should_send(self, order, change):
        return order.status != "draft"

    def get_path(self, order, change):
        return str(change.event)


def save(order, status):
    order.status = status
    order.save()


def told(receiver):
    """Wait until nothing is due, and return what the remote got."""
    backends["default"].drain(30)
    return [(r.path, r.json["status"] if r.body else None) for r in receiver.requests]


def test_created_and_saved_twice_is_one_call_with_the_final_state(receiver, declare):
    declare(Order, base=Paid)
    with transaction.atomic():
        order = Order.objects.create(number="A-1", status="new")
        save(order, "paid")
        save(order, "sent")

    assert told(receiver) == [("/created", "sent")]
    assert Delivery.objects.count() == 1


def test_a_draft_that_is_paid_in_the_same_transaction_is_created(receiver, declare):
    declare(Order, base=Paid)
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
        save(order, "paid")

    assert told(receiver) == [("/created", "paid")]


@pytest.mark.parametrize("low_level", [False, True])
@pytest.mark.parametrize("is_new", [False, True])
def test_what_a_savepoint_took_back_leaves_the_state_before_it(
    receiver, declare, low_level, is_new
):
    order = Order(number="A-1", status="new")
    if not is_new:
        order.save()
    declare(Order, base=Paid)
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

    assert told(receiver) == [("/created" if is_new else "/updated", "paid")]
    assert Order.objects.get().status == "paid"


@pytest.mark.parametrize("saves", [0, 2])
def test_created_and_deleted_is_no_call(receiver, declare, saves):
    declare(Order, base=Paid)
    with transaction.atomic():
        order = Order.objects.create(number="A-1", status="paid")
        for _ in range(saves):
            order.save()
        order.delete()

    assert told(receiver) == []
    assert not Delivery.objects.exists()


def test_created_and_deleted_is_no_call_where_only_deletes_are_heard(receiver, declare):
    declare(Order, base=Paid, on=["deleted"], method="DELETE")
    stays = Order.objects.create(number="A-0", status="paid")
    with transaction.atomic():
        Order.objects.create(number="A-1", status="paid").delete()
        stays.delete()

    assert told(receiver) == [("/deleted", None)]


def test_paid_and_back_to_draft_is_no_call(receiver, declare):
    declare(Order, base=Paid)
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
        save(order, "paid")
        save(order, "draft")
    assert told(receiver) == []
    with transaction.atomic():
        save(order, "paid")
        save(order, "draft")

    assert told(receiver) == []
    assert not Delivery.objects.exists()


def test_a_rolled_back_transaction_is_no_call_and_the_next_one_starts_anew(receiver, declare):
    declare(Order, base=Paid)
    order = Order.objects.create(number="A-1", status="new")
    with pytest.raises(RuntimeError), transaction.atomic():
        save(order, "gone")
        raise RuntimeError
    with transaction.atomic():
        save(order, "paid")
        save(order, "sent")

    assert told(receiver) == [("/created", "new"), ("/updated", "sent")]
