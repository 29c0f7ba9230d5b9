"""Bulk operations beside saves of the same objects: what is told last is what stands there."""

import random
import threading

import pytest
from django.db import connection, connections, transaction

from signal_dispatch import suppressed
from signal_dispatch.backends import backends
from signal_dispatch.models import Delivery
from tests.acceptance.soak import report, scaled
from tests.shop.models import Ticket

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("as_in_production"),
    pytest.mark.skipif(
        "connection.vendor == 'sqlite' and connection.is_in_memory_db()",
        reason="Threads are locked out of an in-memory database.",
    ),
]

ROUNDS = scaled(12, 300)


def test_the_last_call_carries_the_last_state(declare, receiver):
    declare(Ticket, path="{number}")
    with suppressed():
        made = Ticket.objects.bulk_create([Ticket(number=f"T-{n}") for n in range(6)])
    errors = []

    def update(name):
        for turn in range(ROUNDS):
            Ticket.objects.filter(pk__in=random.sample([t.pk for t in made], 4)).update(
                status=f"{name}-{turn}"
            )

    def bulk_update(name):
        for turn in range(ROUNDS):
            some = random.sample(made, 4)
            rows = [Ticket(pk=t.pk, number=t.number, status=f"{name}-{turn}") for t in some]
            # In the order of keys: so many rows at once are a deadlock with anybody else's else.
            Ticket.objects.bulk_update(sorted(rows, key=lambda t: t.pk), ["status"])

    def save(name):
        for turn in range(ROUNDS):
            ticket = random.choice(made)
            Ticket(pk=ticket.pk, number=ticket.number, status=f"{name}-{turn}").save()

    def run(work, name):
        try:
            work(name)
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    works = [(update, "u"), (update, "v"), (bulk_update, "b"), (save, "s")]
    threads = [threading.Thread(target=run, args=each) for each in works]
    for each in threads:
        each.start()
    for each in threads:
        each.join(120)
    backends["default"].drain(60)

    assert errors == []
    last = {request.json["number"]: request.json["status"] for request in receiver.requests}
    assert last == {t.number: t.status for t in Ticket.objects.all()}
    assert not Delivery.objects.exclude(state="delivered").exists()
    assert len(receiver.requests) == Delivery.objects.count() == 4 * ROUNDS * 3 + ROUNDS
    report(f"bulk beside saves, {connection.vendor}", calls=len(receiver.requests))


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer.")
def test_old_values_are_those_that_the_write_meets(declare, receiver):
    declare(Ticket, when_changed=["status"])
    with suppressed():
        made = Ticket.objects.create(number="T-1", status="new")
    changed, go_on = threading.Event(), threading.Event()

    def change():
        with transaction.atomic(), suppressed():
            Ticket.objects.update(status="sold")
            changed.set()
            go_on.wait(10)
        connection.close()

    other = threading.Thread(target=change)
    other.start()
    changed.wait(10)
    threading.Timer(0.3, go_on.set).start()
    Ticket.objects.filter(pk=made.pk).update(status="new")  # back again: that is a change
    other.join(10)

    assert [d.payload["status"] for d in Delivery.objects.all()] == ["new"]
