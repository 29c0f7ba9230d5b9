"""``send()`` has no deadline: its lease is kept for ``SEND_LIMIT`` seconds, and no longer."""

import threading
import time

import pytest

from signal_dispatch.models import Attempt, Delivery
from tests.acceptance.fleet import Fleet, await_calm, over_processes
from tests.acceptance.soak import report
from tests.deliveries import delivery
from tests.once import ONCE
from tests.waiting import eventually

pytestmark = [*over_processes, ONCE]

LEASE = 2


@pytest.fixture
def fleet(receiver, tmp_path):
    with Fleet(receiver.url, tmp_path, LEASE_SECONDS=str(LEASE), DECLARED="by_send") as fleet:
        yield fleet


@pytest.fixture
def answered(receiver):
    """Let the first call wait until the test sets this; answer all others at once."""
    answered = threading.Event()

    def script(request):
        if len(receiver.requests) == 1:
            receiver.hold(answered, 60)
        return 200, {}, b"{}"

    receiver.script = script
    yield answered
    answered.set()


def record():
    headers = {"Content-Type": "application/json"}
    delivery(dispatch="shop.BySend", headers=headers, body=b'{"number": "1"}')


def test_within_its_limit_nobody_else_takes_it_though_the_lease_is_shorter(
    receiver, answered, fleet
):
    record()
    workers = [fleet.worker(SEND_LIMIT="60"), fleet.worker(SEND_LIMIT="60")]
    receiver.wait_for(1)
    began = time.monotonic()
    first = Delivery.objects.get()
    # Another lease is over, and both have looked at what is due since.
    eventually(lambda: Delivery.objects.get().available_at > first.available_at, LEASE * 3)
    eventually(lambda: time.monotonic() > began + 2 * LEASE, 3 * LEASE)
    answered.set()
    await_calm(30)

    report("send() within SEND_LIMIT", seconds=round(time.monotonic() - began, 1), lease=LEASE)
    row = Delivery.objects.get()
    assert (row.state, row.epoch, row.attempts, len(receiver.requests)) == ("delivered", 1, 1, 1)
    for worker in workers:
        fleet.end(worker)


def test_past_its_limit_it_is_taken_again_and_the_late_record_is_refused(receiver, answered, fleet):
    record()
    # Which of them takes it again is chance: both are there.
    workers = [fleet.worker(SEND_LIMIT="1"), fleet.worker(SEND_LIMIT="1")]
    receiver.wait_for(1)
    began = time.monotonic()
    receiver.wait_for(2, timeout=30)
    taken_after = time.monotonic() - began
    await_calm(30)
    before = list(Delivery.objects.values())
    answered.set()
    eventually(lambda: Attempt.objects.count() == 2, 10)

    report("send() past SEND_LIMIT of 1 s", taken_after=round(taken_after, 1), lease=LEASE)
    assert taken_after > 1
    assert list(Delivery.objects.values()) == before
    assert (before[0]["state"], before[0]["epoch"]) == ("delivered", 2)
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {"delivered"}
    for worker in workers:
        fleet.end(worker)
