"""MariaDB as some sites have it: each transaction sees the rows as they stood when it began."""

import threading

import pytest
from django.db import connection, connections, transaction

from signal_dispatch.backends import backends
from signal_dispatch.models import Delivery
from tests.acceptance.soak import report, scaled
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
    pytest.mark.skipif(
        connection.vendor != "mysql",
        reason="PostgreSQL refuses such writes itself, and SQLite has one writer.",
    ),
]
SAVERS = 4


@pytest.fixture(autouse=True)
def repeatable_read(receiver, declare):
    declare(Order, path="orders/{pk}", fields=["status"], on=["created", "updated"])
    options = connections.settings["default"]["OPTIONS"]
    options["isolation_level"] = "repeatable read"
    connection.close()
    yield
    backends["default"].stop()
    options.pop("isolation_level")
    connection.close()


def in_threads(work):
    errors, together = [], threading.Barrier(SAVERS)

    def run(name):
        try:
            together.wait(10)
            work(name)
        except Exception as error:  # noqa: BLE001 - told by the test
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(SAVERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return errors


def test_savers_that_race_for_lanes_wait_for_nobody_and_lose_nothing(receiver):
    orders = [Order.objects.create(number=f"A-{number}") for number in range(5)]
    rounds = scaled(15, 300)

    def save(name):
        for number in range(rounds):
            order = Order.objects.get(pk=orders[(name + number) % 5].pk)
            order.status = f"{name}-{number}"
            order.save()

    errors = in_threads(save)
    backends["default"].drain(120)
    saves = 5 + SAVERS * rounds
    stuck = Delivery.objects.unfinished().count()
    twice = len(receiver.requests) - Delivery.objects.filter(state="delivered").count()
    report("REPEATABLE READ", saves=saves, refused=len(errors), stuck=stuck, twice=twice)

    assert errors == []
    assert Delivery.objects.filter(state="delivered").count() == saves
    assert twice == 0
    assert out_of_order(receiver) == []


def test_transactions_that_look_into_neighbouring_lanes_do_not_deadlock(receiver):
    own = {n: [Order.objects.create(number=f"{n}-{i}") for i in range(5)] for n in range(SAVERS)}
    backends["default"].drain(60)
    rounds = scaled(10, 200)

    def save(name):
        for number in range(rounds):
            with transaction.atomic():
                for order in own[name]:
                    order.status = f"{number}"
                    order.save()

    errors = in_threads(save)
    backends["default"].drain(120)
    saves = 5 * SAVERS * (1 + rounds)
    report("REPEATABLE READ, neighbours", saves=saves, refused=len(errors))

    assert errors == []
    assert Delivery.objects.filter(state="delivered").count() == saves
    assert out_of_order(receiver) == []


def out_of_order(receiver):
    """Return the objects whose calls did not come in the order in which they were committed."""
    wrong = []
    for order in Order.objects.all():
        sent = [r.json["status"] for r in receiver.requests if r.path == f"/orders/{order.pk}"]
        rows = Delivery.objects.filter(object_pk=order.pk).order_by("id")
        if sent != [row.payload["status"] for row in rows]:
            wrong.append(order.pk)
    return wrong


def test_a_transaction_with_an_old_snapshot_does_not_overtake(receiver):
    order = Order.objects.create(number="A-1")
    backends["default"].drain(30)
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b"{}"))[1]

    def save_elsewhere():
        Order.objects.get(pk=order.pk).save()
        connections.close_all()

    with transaction.atomic():
        assert not Delivery.objects.unfinished().exists(), "the snapshot is taken"
        other = threading.Thread(target=save_elsewhere)
        other.start()
        other.join(30)
        receiver.wait_for(2)
        order.status = "later"
        order.save()
        assert Delivery.objects.latest("id").state == "waiting"
    go.set()
    backends["default"].drain(30)

    assert [r.json["status"] for r in receiver.requests] == ["draft", "draft", "later"]
