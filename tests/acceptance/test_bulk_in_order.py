"""Bulk operations beside saves of the same objects: what is told last is what stands there."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, connection, connections, transaction

from signal_dispatch import suppressed
from signal_dispatch.backends import backends
from signal_dispatch.deadlocks import is_deadlock
from signal_dispatch.models import Delivery
from tests.acceptance.soak import report, scaled
from tests.shop.models import Ticket
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("as_in_production"),
    pytest.mark.skipif(
        "connection.vendor == 'sqlite' and connection.is_in_memory_db()",
        reason="Threads are locked out of an in-memory database.",
    ),
]

ROUNDS = scaled(12, 300)


def update(made, state):
    keys = [t.pk for t in random.sample(made, 4)]
    Ticket.objects.filter(pk__in=keys).update(status=state)


def bulk_update(made, state):
    # By key, as update() does: else Django's own lists make a deadlock with each other.
    some = sorted(random.sample(made, 4), key=lambda t: t.pk)
    rows = [Ticket(pk=t.pk, number=t.number, status=state) for t in some]
    Ticket.objects.bulk_update(rows, ["status"])


def save(made, state):
    ticket = random.choice(made)
    Ticket(pk=ticket.pk, number=ticket.number, status=state).save()


def again_and_again(work, made, name):
    try:
        for turn in range(ROUNDS):
            work(made, f"{name}-{turn}")
    finally:
        connections.close_all()


def test_the_last_call_carries_the_last_state(declare, receiver):
    declare(Ticket, path="{number}")
    with suppressed():
        made = Ticket.objects.bulk_create([Ticket(number=f"T-{n}") for n in range(6)])
    works = [(update, "u"), (update, "v"), (bulk_update, "b"), (save, "s")]
    with ThreadPoolExecutor(len(works)) as pool:
        done = [pool.submit(again_and_again, work, made, name) for work, name in works]
        for each in done:
            each.result(120)
    backends["default"].drain(60)

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


def update_all(made, status):
    return Ticket.objects.filter(pk__in=[t.pk for t in made]).update(status=status)


def bulk_update_all(made, status):
    # From what can be gone through once only.
    return Ticket.objects.bulk_update((Ticket(pk=t.pk, status=status) for t in made), ["status"])


def cross(write):
    """Let a transaction that weighs more, and one that writes, each want a row of the other's.

    MariaDB ends the one that weighs less, PostgreSQL the first to look, which is mostly who waits
    longer. So it is done until the one that writes was ended; returns the tickets of that time, and
    what came of ``write`` then.
    """
    for turn in range(20):
        with suppressed():
            made = Ticket.objects.bulk_create([Ticket(number=f"{turn}-{n}") for n in range(3)])
        has_last = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            against = pool.submit(go_against, made, has_last)
            assert has_last.wait(10), against.exception(30)
            written = pool.submit(write_apart, write, made)
            if against.exception(30) is None:
                return made, written
            assert is_deadlock(against.exception())
            written.result()
    raise AssertionError("The one that writes was never the one that is ended.")


def write_apart(write, made):
    try:
        return write(made)
    finally:
        connections.close_all()


def go_against(made, has_last):
    onlooker = connection.copy()
    try:
        with transaction.atomic(), suppressed():
            Ticket.objects.bulk_create([Ticket(number=f"heavy-{n}") for n in range(200)])
            Ticket.objects.filter(pk=made[-1].pk).update(place=1)
            has_last.set()
            eventually(lambda: is_locked(made[0], onlooker))
            Ticket.objects.filter(pk=made[0].pk).update(place=1)
    finally:
        onlooker.close()
        connections.close_all()


def is_locked(ticket, onlooker):
    with onlooker.cursor() as cursor:
        sql = "SELECT 1 FROM shop_ticket WHERE id = %s FOR UPDATE SKIP LOCKED"
        cursor.execute(sql, [ticket.pk])
        return cursor.fetchone() is None


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer.")
@pytest.mark.parametrize("write", [update_all, bulk_update_all])
def test_what_a_deadlock_ends_is_done_again(declare, receiver, write):
    declare(Ticket, path="{number}")

    made, written = cross(lambda made: write(made, "sold"))

    assert written.result() == 3
    backends["default"].drain(60)
    sent = [(r.json["number"], r.json["status"]) for r in receiver.requests]
    numbers = [ticket.number for ticket in made]
    assert sorted(one for one in sent if one[0] in numbers) == [(n, "sold") for n in numbers]
    assert list(
        Ticket.objects.filter(number__in=numbers).order_by("pk").values_list("status", "place")
    ) == [("sold", 1), ("sold", 0), ("sold", 1)]


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer.")
def test_but_the_transaction_of_a_site_is_the_sites(declare, receiver):
    declare(Ticket, path="{number}")

    def write(made):
        with transaction.atomic():
            update_all(made, "sold")

    made, written = cross(write)

    with pytest.raises(OperationalError, match=r"(?i)deadlock"):
        written.result()
    assert not Delivery.objects.filter(object_pk__in=[ticket.pk for ticket in made]).exists()
