"""Models on several databases: routers, replicas, and one that has no outbox."""

import threading

import pytest
from django.db import connections

from signal_dispatch.backends import backends
from signal_dispatch.models import Attempt, Delivery
from tests.acceptance.soak import report, scaled
from tests.deliveries import delivery
from tests.settings import DATABASE
from tests.shop.models import Customer, Order
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("as_in_production"),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Threads are locked out of an in-memory database.",
    ),
]


class CustomersElsewhere:
    """Customers live on ``other``, whole; everything else asks nobody."""

    def db_for_read(self, model, **hints):
        return "other" if model is Customer else None

    db_for_write = db_for_read


class Replica:
    """``other`` follows ``default`` and is read from."""

    def db_for_read(self, model, **hints):
        return "other"

    def db_for_write(self, model, **hints):
        return "default"


def drain():
    backends["default"].drain(60)


def states(using):
    return set(Delivery.objects.using(using).values_list("state", flat=True))


def test_deliveries_stand_beside_their_models_and_all_are_sent(receiver, declare, settings):
    settings.DATABASE_ROUTERS = [CustomersElsewhere()]
    declare(Order)
    declare(Customer, name="shop.CustomerTold", fields=["name"])
    count = scaled(30, 500)

    def save(model, field):
        for number in range(count):
            made = model.objects.create(**{field: f"{field}-{number}"})
            made.save()
        connections.close_all()

    threads = [
        threading.Thread(target=save, args=arguments)
        for arguments in ((Order, "number"), (Customer, "name"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    drain()
    report("two databases", saves=4 * count, calls=len(receiver.requests))

    for using, model in (("default", "shop.order"), ("other", "shop.customer")):
        assert set(Delivery.objects.using(using).values_list("model", flat=True)) == {model}
        assert states(using) == {"delivered"}
        assert Delivery.objects.using(using).count() == 2 * count
        assert Attempt.objects.using(using).count() == 2 * count
    keys = [request.headers["Idempotency-Key"] for request in receiver.requests]
    assert len(set(keys)) == len(keys) == 4 * count


def test_what_is_due_in_each_database_is_found(receiver, declare, settings):
    settings.DATABASE_ROUTERS = [CustomersElsewhere()]
    declare(Order)
    delivery()
    delivery("other")
    drain()

    assert states("default") == states("other") == {"delivered"}


def test_a_replica_is_read_by_the_site_and_never_swept_or_written(receiver, declare, settings):
    settings.DATABASE_ROUTERS = [Replica()]
    declare(Order)
    # As far as the replica knows, these are still to be sent.
    old = [delivery(object_pk=number) for number in range(3)]
    for made in old:
        made.save(using="other")
    before = list(Delivery.objects.using("other").order_by("pk").values())
    for number in range(10):
        Order.objects.create(number=f"A-{number}")
    drain()

    assert states("default") == {"delivered"}
    assert Delivery.objects.using("default").count() == 13
    assert list(Delivery.objects.using("other").order_by("pk").values()) == before
    assert len(receiver.requests) == 13
    assert Attempt.objects.using("default").count() == 13


@pytest.fixture
def without_table():
    """Let ``other`` be a database that nobody migrated."""
    table = Delivery._meta.db_table
    _rename("other", table, f"{table}_away")
    yield
    backends["default"].stop()
    _rename("other", f"{table}_away", table)


def _rename(using, old, new):
    with connections[using].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


def test_an_alias_without_our_tables_holds_nothing_up(receiver, declare, caplog, without_table):
    declare(Order)
    backends["default"].start()
    eventually(lambda: "The database 'other' has no outbox: run 'migrate'" in caplog.text)
    for number in range(5):
        Order.objects.create(number=f"A-{number}")
    drain()

    assert states("default") == {"delivered"}
    assert caplog.text.count("has no outbox") == 1
    assert "can't be reached" not in caplog.text
