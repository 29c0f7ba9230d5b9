"""Handlers that write the object, beside threads that save it: nobody waits for the other."""

import threading

import pytest
from django.db import Error, connection, connections, transaction

from signal_dispatch import ModelDispatch, claims, replacing
from signal_dispatch.backends import backends
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.inline import send_inline
from signal_dispatch.lanes import lane_of
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease
from tests.acceptance.soak import report, scaled
from tests.deliveries import delivery
from tests.settings import DATABASE
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Threads are locked out of an in-memory database.",
    ),
]

THREADS = 8


class Answered(ModelDispatch):
    """Lock the object, and save it, in the transaction that settles the delivery."""

    def handle_response(self, delivery, response):
        order = Order.objects.select_for_update().get(pk=delivery.object_pk)
        order.crm_id = f"c-{delivery.pk}"
        order.save()


def save_plainly(pk, step):
    order = Order(pk=pk, number=f"A-{pk}", status=f"s{step}")
    order.save(update_fields=["status"])


def save_and_merge(pk, step):
    order = Order(pk=pk, number=f"A-{pk}", status=f"s{step}")
    with transaction.atomic():
        for part in "abc":
            order.status = f"s{step}{part}"
            order.save(update_fields=["status"])


def save_in_a_savepoint(pk, step):
    order = Order(pk=pk, number=f"A-{pk}", status=f"s{step}")
    with transaction.atomic():
        order.save(update_fields=["status"])
        with transaction.atomic():
            order.notes = str(step)
            order.save(update_fields=["notes", "status"])


@pytest.mark.parametrize(
    ("save", "declared"),
    [
        (save_plainly, {}),
        (save_plainly, {"when_changed": ["status"]}),
        (save_and_merge, {}),
        (save_and_merge, {"when_changed": ["status"]}),
        # No lanes: several answers for one object at once.
        (save_and_merge, {"ordered": False}),
        (save_in_a_savepoint, {"when_changed": ["status"]}),
        (save_plainly, {"latest_wins": True}),
        (save_and_merge, {"latest_wins": True}),
    ],
)
def test_a_handler_that_locks_and_saves_never_meets_a_saver(
    receiver, declare, caplog, save, declared
):
    orders = [Order.objects.create(number=f"A-{n}") for n in range(3)]
    declare(Order, base=Answered, **declared)
    saves, errors = scaled(6, 400), []
    together = threading.Barrier(THREADS)

    def work(thread):
        try:
            together.wait(30)
            for step in range(saves):
                try:
                    save(orders[(thread + step) % 3].pk, f"{thread}-{step}"[:18])
                except Error as error:
                    errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backends["default"].drain(scaled(120, 900))  # an object's go one by one

    troubles = [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")]
    report(
        f"{save.__name__} with {declared or 'nothing'} on {connection.vendor}",
        saves=THREADS * saves,
        deadlocks=sum("eadlock" in text for text in [*map(str, errors), *troubles]),
        locked=sum("locked" in text for text in [*map(str, errors), *troubles]),
    )
    assert errors == []
    assert troubles == []
    replaced = Delivery.objects.filter(state="cancelled", replaced_by__isnull=False).count()
    assert Delivery.objects.count() == len(receiver.requests) + replaced == THREADS * saves
    assert replaced == 0 or declared.get("latest_wins")
    made = Delivery.objects.exclude(state="cancelled")
    assert not made.exclude(state="delivered", handler_tries=0).exists()
    assert not Order.objects.filter(crm_id="").exists()


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite locks no rows.")
def test_a_handler_that_outlives_its_lease_never_meets_the_saver_who_replaces_its_delivery(
    receiver, declare, monkeypatch, caplog
):
    order = Order.objects.create(number="A-1")
    declare(Order, base=Answered, latest_wins=True)
    lane = lane_of("", "crm", "shop.Told", "shop.order", order.pk)
    made = delivery(object_pk=order.pk, lane=lane, available_at=DatabaseNow(3600))
    handling, cancel = threading.Event(), replacing._cancel
    handle_response = Answered.handle_response

    def send():
        lease = Lease(claims.holder(), 0.3)
        send_inline(claims.claim_ids("default", lease, [made.pk]), "default", lease)
        connections.close_all()

    def say_that_it_begins(dispatch, delivery, response):
        handling.set()
        handle_response(dispatch, delivery, response)

    def let_it_be_sent_meanwhile(rows, waiting):
        monkeypatch.setattr(replacing, "_cancel", cancel)
        sender.start()
        assert handling.wait(30)
        over = Delivery.objects.filter(pk=made.pk, available_at__lte=DatabaseNow())
        eventually(over.exists)
        return cancel(rows, waiting)

    sender = threading.Thread(target=send)
    monkeypatch.setattr(Answered, "handle_response", say_that_it_begins)
    monkeypatch.setattr(replacing, "_cancel", let_it_be_sent_meanwhile)
    order.save()
    sender.join(60)

    assert [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []
    assert [d.state for d in Delivery.objects.order_by("id")] == ["cancelled", "pending"]
    assert len(receiver.requests) == 1
