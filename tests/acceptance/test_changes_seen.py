"""What a save changed, told truly: the values that stood in the database, and stand there now."""

import threading
from decimal import Decimal

import pytest
from django.db import connections, transaction
from django.db.models import F

from signal_dispatch import ModelDispatch
from signal_dispatch.backends import backends
from tests.acceptance.soak import report, scaled
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

WATCHED = ["status", "total", "data"]


class Watching(ModelDispatch):
    """Keep what was told of each change."""

    def should_send(self, order, change):
        self.seen.append((dict(change.old), dict(change.new)))
        return True


@pytest.fixture
def order(declare):
    """An order that was there before anything was declared."""
    made = Order.objects.create(number="A-1", status="new", total=1, data={"a": [1]})
    Watching.seen = []
    declare(Order, base=Watching, fields=["number", *WATCHED], when_changed=WATCHED)
    return made


def drain():
    backends["default"].drain(30)


def stale(order):
    mine = Order.objects.get(pk=order.pk)
    Order.objects.filter(pk=order.pk).update(status="paid", total=7)
    mine.notes = "only this"
    mine.save()


def stale_but_the_same(order):
    mine = Order.objects.get(pk=order.pk)
    Order.objects.filter(pk=order.pk).update(notes="another's")
    mine.save()


def only(order):
    mine = Order.objects.only("status").get(pk=order.pk)
    Order.objects.filter(pk=order.pk).update(total=7)
    mine.status = "paid"
    mine.save()


def only_what_is_not_watched(order):
    mine = Order.objects.only("notes").get(pk=order.pk)
    mine.notes = "x"
    mine.save()


def deferred_and_set(order):
    mine = Order.objects.defer("status").get(pk=order.pk)
    mine.status = "paid"
    mine.save()


def expression(order):
    Order.objects.filter(pk=order.pk).update(total=7)
    order.total = F("total") + 1
    order.save(update_fields=["total"])


def expression_that_changes_nothing(order):
    order.total = F("total") * 1
    order.save()


def update_fields(order):
    order.status, order.total = "paid", 9
    order.save(update_fields=["status"])


def update_fields_without(order):
    order.status = "paid"
    order.notes = "x"
    order.save(update_fields=["notes"])


def in_place(order):
    order.data["a"].append(2)
    order.save()


def in_place_and_back(order):
    order.data["a"].append(2)
    order.data["a"].pop()
    order.save()


def same_value_of_another_type(order):
    order.total = "1.00"
    order.save()


BEFORE = {"status": "new", "total": Decimal(1), "data": {"a": [1]}}


@pytest.mark.parametrize("in_atomic", [False, True], ids=["autocommit", "atomic"])
@pytest.mark.parametrize(
    ("save", "before", "after"),
    [
        (stale, {"status": "paid", "total": Decimal(7)}, {"status": "new", "total": Decimal(1)}),
        (stale_but_the_same, None, None),
        (only, {"total": Decimal(7)}, {"status": "paid", "total": Decimal(7)}),
        (only_what_is_not_watched, None, None),
        (deferred_and_set, {}, {"status": "paid"}),
        (expression, {"total": Decimal(7)}, {"total": Decimal(8)}),
        (expression_that_changes_nothing, None, None),
        (update_fields, {}, {"status": "paid"}),
        (update_fields_without, None, None),
        (in_place, {}, {"data": {"a": [1, 2]}}),
        (in_place_and_back, None, None),
        (same_value_of_another_type, None, None),
    ],
)
def test_old_and_new_values_are_those_of_the_database(
    receiver, order, save, before, after, in_atomic
):
    if in_atomic:
        with transaction.atomic():
            save(order)
    else:
        save(order)
    drain()

    if before is None:
        assert (Watching.seen, receiver.requests) == ([], [])
        return
    ((old, new),) = Watching.seen
    assert old == BEFORE | before
    assert new == BEFORE | after
    stored = Order.objects.get(pk=order.pk)
    assert new == {name: getattr(stored, name) for name in WATCHED}


@pytest.mark.parametrize("in_atomic", [False, True], ids=["autocommit", "atomic"])
def test_of_two_concurrent_savers_the_second_sees_what_the_first_left(receiver, order, in_atomic):
    """Both hold the instance as it was before."""
    copies = [Order.objects.get(pk=order.pk) for _ in range(2)]
    written, begun = threading.Event(), threading.Event()
    errors = []

    def second():
        try:
            written.wait(10)
            begun.set()
            copies[1].status = "second"
            if in_atomic:
                with transaction.atomic():
                    copies[1].save()
            else:
                copies[1].save()
        except Exception as error:  # noqa: BLE001 - told by the assert below
            errors.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=second)
    thread.start()
    with transaction.atomic():
        copies[0].status = "first"
        copies[0].save()
        written.set()
        begun.wait(10)
        thread.join(0.3)  # as good as blocked: it can't end before this transaction does
        assert thread.is_alive()
    thread.join(30)
    drain()

    assert errors == []
    told = [(old["status"], new["status"]) for old, new in Watching.seen]
    assert told == [("new", "first"), ("first", "second")]
    assert [r.json["status"] for r in receiver.requests] == ["first", "second"]


@pytest.mark.parametrize("in_atomic", [False, True], ids=["autocommit", "atomic"])
def test_many_savers_of_one_object_see_one_history(receiver, order, in_atomic):
    steps, threads, errors = scaled(15, 300), 4, []
    together = threading.Barrier(threads)

    def work(name):
        try:
            mine = Order.objects.get(pk=order.pk)
            together.wait(30)
            for step in range(steps):
                mine.status = f"{name}-{step}"
                if in_atomic:
                    with transaction.atomic():
                        mine.save()
                else:
                    mine.save()
        except Exception as error:  # noqa: BLE001 - told by the assert below
            errors.append(error)
        finally:
            connections.close_all()

    workers = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    backends["default"].drain(120)

    told = [r.json["status"] for r in receiver.requests]
    assert errors == []
    assert len(told) == len(set(told)) == threads * steps
    olds = {new["status"]: old["status"] for old, new in Watching.seen}
    broken = sum(olds[new] != old for old, new in zip(["new", *told], told, strict=False))
    report(f"{threads} savers of one object", changes=len(told), untrue_old_values=broken)
    assert broken == 0
