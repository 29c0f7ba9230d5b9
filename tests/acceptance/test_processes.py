"""Processes that end: at once, by a kill, and what the next one makes of what they left."""

import pytest

from signal_dispatch.models import Delivery
from tests.acceptance.process import run, start
from tests.settings import DATABASE
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Another process can't see an in-memory database.",
    ),
]


def numbers(receiver):
    return sorted(request.json["number"] for request in receiver.requests)


def test_a_script_that_ends_at_once_still_sends(receiver):
    run(receiver.url, "save", "20", "s")

    assert len(set(numbers(receiver))) == len(numbers(receiver)) == 20
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


def test_what_a_killed_process_left_is_delivered_by_a_worker(receiver):
    script, receiver.script = receiver.script, lambda request: (500, {}, b"")
    run(receiver.url, "save-and-die", "5", "k")
    assert Order.objects.count() == Delivery.objects.count() == 5
    assert Delivery.objects.exclude(state="pending").count() == 0
    receiver.script = script
    eventually(lambda: not Delivery.objects.exclude(pk__in=due()).exists(), 15)
    output = run(receiver.url, "dispatch_worker", "--once")

    assert "Stopped." in output
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
    assert len(set(numbers(receiver))) == 5


def due():
    from signal_dispatch.clocks import DatabaseNow

    rows = Delivery.objects.filter(available_at__lte=DatabaseNow())
    return list(rows.values_list("pk", flat=True))


def test_what_a_killed_process_left_is_delivered_by_one_that_only_reads(receiver):
    receiver.script = lambda request: (receiver.wait(0.05), (200, {}, b""))[1]
    run(receiver.url, "save-and-die", "30", "k")
    left = Delivery.objects.filter(state="pending").count()
    assert left > 0
    server = start(receiver.url, "serve")
    try:
        eventually(lambda: not Delivery.objects.unfinished().exists(), 30)
    finally:
        server.kill()
        server.communicate()

    assert len(set(numbers(receiver))) == 30
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


def test_once_leaves_what_is_scheduled_or_held_by_others(receiver):
    from signal_dispatch.clocks import DatabaseNow
    from tests.deliveries import delivery

    held = delivery(available_at=DatabaseNow(60), held_by="another", epoch=1)
    later = delivery(available_at=DatabaseNow(60))
    due_now = delivery()
    foreign = delivery(environment="production")
    unknown = delivery(dispatch="shop.Gone")
    run(receiver.url, "dispatch_worker", "--once")

    states = dict(Delivery.objects.values_list("pk", "state"))
    assert states.pop(due_now.pk) == "delivered"
    assert states == {row.pk: "pending" for row in (held, later, foreign, unknown)}
    assert len(receiver.requests) == 1


def test_five_processes_on_one_outbox_make_each_call_once(receiver):
    savers = [start(receiver.url, "save", "100", f"p{number}") for number in range(3)]
    workers = [start(receiver.url, "dispatch_worker", "--concurrency", "8") for _ in range(2)]
    try:
        for saver in savers:
            output, _none = saver.communicate(timeout=120)
            assert saver.returncode == 0, output
        eventually(lambda: not Delivery.objects.unfinished().exists(), 60)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.communicate(timeout=60)

    keys = [request.headers["Idempotency-Key"] for request in receiver.requests]
    assert len(keys) == len(set(keys)) == Delivery.objects.count() == 300
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


def test_a_worker_ends_on_the_first_signal_with_what_it_began(receiver):
    receiver.script = lambda request: (receiver.wait(0.3), (200, {}, b""))[1]
    from tests.deliveries import delivery

    for number in range(40):
        delivery(object_pk=number)
    worker = start(receiver.url, "dispatch_worker", "--concurrency", "2")
    receiver.wait_for(4, timeout=20)
    worker.terminate()
    output, _none = worker.communicate(timeout=30)

    assert worker.returncode == 0, output
    assert "Traceback" not in output
    assert not Delivery.objects.exclude(held_by="").exists(), "the rest is handed back"
    assert Delivery.objects.filter(state="delivered").count() == len(receiver.requests)
