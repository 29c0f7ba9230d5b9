"""Fenced: a process that slept past its lease sends nothing new, and overwrites nothing."""

import pytest

from signal_dispatch.models import Attempt, Delivery, WorkerProcess
from tests.acceptance.fleet import Fleet, Remote, await_calm, over_processes
from tests.acceptance.soak import report
from tests.deliveries import delivery
from tests.settings import DATABASE
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = over_processes

LEASE = 3


@pytest.fixture
def fleet(receiver, tmp_path):
    with Fleet(receiver.url, tmp_path, LEASE_SECONDS=str(LEASE)) as fleet:
        yield fleet


def rescue(fleet):
    """Let another process deliver what the one that sleeps holds."""
    other = fleet.worker()
    await_calm(LEASE + 30)
    fleet.end(other)


def living_worker(fleet, **options):
    """Start a worker, and wait until it wrote that it lives.

    Put to sleep in the middle of that write, it would keep everybody else from SQLite.
    """
    worker = fleet.worker(**options)
    eventually(WorkerProcess.objects.exists, 30)
    return worker


def rows():
    return list(Delivery.objects.order_by("id").values())


def test_a_worker_that_slept_before_it_sent_does_not_send(receiver, fleet):
    remote = Remote(receiver)
    for number in range(20):
        delivery(object_pk=number, body=b'{"number": "%d"}' % number)
    sleeper = fleet.worker(crash="pause:after_claim")
    fleet.await_pause(sleeper)
    assert Delivery.objects.filter(epoch=1).count() == 20
    rescue(fleet)
    before = rows()
    fleet.wake(sleeper)
    fleet.end(sleeper)

    report("slept after the claim", calls=len(remote.taken), duplicates=remote.duplicates)
    assert len(remote.taken) == len(remote.keys) == 20
    assert rows() == before
    assert {row["epoch"] for row in before} == {2}


def test_a_saver_that_slept_before_it_sent_does_not_send(receiver, fleet):
    remote = Remote(receiver)
    sleeper = fleet.start("save", "1", "s", crash="pause:after_commit")
    fleet.await_pause(sleeper)
    rescue(fleet)
    before = rows()
    fleet.wake(sleeper)
    fleet.join(sleeper)

    report("slept after the commit", calls=len(remote.taken), duplicates=remote.duplicates)
    assert len(remote.taken) == 1
    assert rows() == before


@pytest.mark.parametrize("point", ["mid_request", "after_answer", "before_settling"])
def test_the_late_record_changes_nothing_but_both_attempts_are_kept(point, receiver, fleet):
    remote = Remote(receiver)
    sleeper = living_worker(fleet, crash=f"pause:{point}")
    delivery(body=b'{"number": "1"}')
    fleet.await_pause(sleeper)
    rescue(fleet)
    before = rows()
    fleet.wake(sleeper)
    fleet.end(sleeper)

    outcomes = sorted(Attempt.objects.values_list("outcome", flat=True))
    report(f"slept {point}", calls=len(remote.taken), attempts=len(outcomes))
    assert len(remote.taken) == 2
    assert len(remote.keys["1", 0]) == 1
    assert rows() == before
    assert outcomes == ["delivered", "retry" if point == "mid_request" else "delivered"]
    assert len(set(Attempt.objects.values_list("sender", flat=True))) == 2


def test_a_late_answer_is_not_handled_again(receiver, fleet):
    Remote(receiver)
    order = Order.objects.create(number="a")
    sleeper = living_worker(fleet, crash="pause:after_answer", DECLARED="handled")
    delivery(dispatch="shop.Handled", object_pk=order.pk, body=b'{"number": "a"}')
    fleet.await_pause(sleeper)
    other = fleet.worker(DECLARED="handled")
    await_calm(LEASE + 30)
    fleet.end(other)
    before = rows()
    fleet.wake(sleeper)
    fleet.end(sleeper)

    order.refresh_from_db()
    assert order.total == 1, "what the late handler wrote is taken back"
    assert rows() == before
    assert len(set(Attempt.objects.values_list("sender", flat=True))) == 2


@pytest.mark.skipif(
    DATABASE == "sqlite",
    reason="Whoever sleeps in a transaction there keeps everybody else from writing.",
)
def test_a_handler_that_slept_in_its_transaction_takes_its_writes_back(receiver, fleet):
    Remote(receiver)
    order = Order.objects.create(number="a")
    delivery(dispatch="shop.Handled", object_pk=order.pk, body=b'{"number": "a"}')
    sleeper = fleet.worker(crash="pause:before_settling", DECLARED="handled")
    fleet.await_pause(sleeper)
    other = fleet.worker(DECLARED="handled")
    receiver.wait_for(2, timeout=LEASE + 30)  # it is about to wait for the object's row
    fleet.wake(sleeper)
    fleet.end(sleeper)
    await_calm(30)
    fleet.end(other)

    order.refresh_from_db()
    assert order.total == 1
    assert Delivery.objects.get().state == "delivered"
    assert len(set(Attempt.objects.values_list("sender", flat=True))) == 2
