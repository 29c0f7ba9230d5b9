"""An endpoint that hangs, and far more to send than a process has in its hands."""

import re
import threading
import time
from pathlib import Path

import pytest

from signal_dispatch.backends import backends
from signal_dispatch.models import Delivery
from tests.acceptance import changed
from tests.acceptance.rows import copy
from tests.acceptance.soak import report, scaled
from tests.deliveries import delivery
from tests.settings import DATABASE
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Threads and other processes are locked out of an in-memory database.",
    ),
]
SENDERS = 8
#: Of first attempts and of retries each, a batch more is taken while less than half of one is
#: held; in flight or being recorded are a few others.
BATCH = 4 * SENDERS
MOST_HELD = 2 * (BATCH // 2 + BATCH) + 2 * SENDERS


def status(pid, name):
    """Return a number of the system's about a process, such as ``VmRSS`` in KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE).group(1))


def test_a_hundred_thousand_due_rows_stay_in_the_table(receiver):
    receiver.script = lambda request: (receiver.wait(60), (200, {}, b"{}"))[1]
    warm = delivery(body=b"x" * 1000)
    arguments = ("dispatch_worker", "--concurrency", str(SENDERS))
    worker = changed.start(receiver.url, *arguments)
    try:
        receiver.wait_for(1, timeout=30)
        before = status(worker.pid, "VmRSS")
        copy(delivery(body=bytes(warm.body)), 100_000)
        tried = len(receiver.requests)
        grown = threads = held = sent = 0
        until = time.monotonic() + scaled(60, 600)
        # Each of them lasts a second, so this is a matter of many batches.
        while sent < scaled(5, 60) * SENDERS and held <= MOST_HELD and time.monotonic() < until:
            sent = len(receiver.requests) - tried
            grown = max(grown, status(worker.pid, "VmRSS") - before)
            threads = max(threads, status(worker.pid, "Threads"))
            held = max(held, Delivery.objects.filter(state="pending").exclude(held_by="").count())
            receiver.wait(0.25)
    finally:
        worker.terminate()
        changed.finish(worker)
    report(f"{DATABASE}, 100,000 due", grown_mb=grown / 1024, threads=threads, held=held)

    assert held <= MOST_HELD, "the rest is for others to take"
    assert sent >= scaled(5, 60) * SENDERS, "it went on"
    assert grown < 50 * 1024
    assert threads <= SENDERS + 2, "senders, the bookkeeper, and the one that waits for signals"


@pytest.mark.usefixtures("as_in_production")
def test_what_does_not_fit_is_left_in_the_table_and_sent_when_there_is_room(
    receiver, declare, settings
):
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {
            "BACKEND": "signal_dispatch.backends.threads.ThreadsBackend",
            "OPTIONS": {"max_senders": 4, "queue_size": 20},
        }
    }
    declare(Order)
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b"{}"))[1]
    count = scaled(100, 2000)
    for number in range(count):
        Order.objects.create(number=f"A-{number}")
    held = Delivery.objects.exclude(held_by="").count()
    ours = [t for t in threading.enumerate() if t.name.startswith("signal_dispatch-")]
    unheld = Delivery.objects.filter(state="pending", held_by="").count()
    go.set()
    backends["default"].drain(120)
    report(f"{DATABASE}, queue of 20", saves=count, held=held, threads=len(ours))

    assert held <= 20 + 4, "the queue, and one in each sender's hand"
    assert held + unheld == count
    assert len(ours) <= 4 + 1
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
    keys = [request.headers["Idempotency-Key"] for request in receiver.requests]
    assert len(set(keys)) == count
