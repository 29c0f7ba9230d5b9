"""Retention at work: the process that saves and sends deletes what is old, beside that."""

import time
from datetime import timedelta
from time import monotonic

import pytest
from django.db import connection

from signal_dispatch import pruning
from signal_dispatch.backends import backends
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.pruning import Pruner
from tests.acceptance import rows
from tests.acceptance.soak import report, scaled
from tests.deliveries import attempt_of, delivery
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("as_in_production"),
    pytest.mark.skipif(
        "connection.vendor == 'sqlite' and connection.is_in_memory_db()",
        reason="Threads are locked out of an in-memory database.",
    ),
]

OLD = scaled(8_000, 100_000)
#: Saves are measured in turn with pruning and without: so many at a time, so many times.
BLOCK, BLOCKS = 20, scaled(6, 40)


def finished(state, days, **values):
    return delivery(
        state=state, available_at=None, finished_at=DatabaseNow(-days * 86400), **values
    )


@pytest.fixture
def switch(monkeypatch):
    """Let the process prune again and again, while the switch says so."""
    on = {"now": False, "steps": 0}
    prune, step = Pruner.prune, pruning.step

    def prune_if_on(self):
        if on["now"]:
            prune(self)
        self.next_at = min(self.next_at, monotonic() + 0.2)

    def counted(*arguments):
        on["steps"] += 1
        return step(*arguments)

    monkeypatch.setattr(pruning, "PASS_SECONDS", 0.0)
    monkeypatch.setattr(pruning, "step", counted)
    monkeypatch.setattr(Pruner, "prune", prune_if_on)
    return on


def seconds_of_saves(prefix):
    found = []
    for number in range(BLOCK):
        began = monotonic()
        Order.objects.create(number=f"{prefix}-{number}")
        found.append(monotonic() - began)
        time.sleep(0.01)  # a site with 60 to 90 saves a second
    return found


def p95(seconds):
    return 1000 * sorted(seconds)[int(0.95 * len(seconds))]


def test_old_rows_go_beside_the_traffic_and_nothing_unfinished_goes(declare, receiver, switch):
    declare(Order)
    kept = [
        finished("delivered", 6),
        finished("failed", 29),
        finished("delivered", 30, lane="busy"),
        delivery(lane="busy", available_at=DatabaseNow(86400), created_at=DatabaseNow(-9e6)),
        delivery(state="waiting", lane="busy", available_at=None, created_at=DatabaseNow(-9e6)),
    ]
    attempt_of(kept[0]).save()
    rows.copy(finished("delivered", 8, object_pk="old", body=b"x" * 500), OLD)
    rows.copy(finished("failed", 31, object_pk="old"), 500)
    for old in Delivery.objects.filter(object_pk="old")[:500]:
        attempt_of(old, response_body=b"y" * 500).save()
    rows.tidy()
    before = {made.pk for made in kept}
    with_it, without = [], []
    for block in range(BLOCKS):
        without += seconds_of_saves(f"a{block}")
        switch["now"] = True
        with_it += seconds_of_saves(f"b{block}")
        switch["now"] = False
    steps = switch["steps"]
    switch["now"] = True
    eventually(lambda: not Delivery.objects.filter(object_pk="old").exists(), scaled(120, 600))
    backends["default"].drain(30)

    calls = [request.headers["Idempotency-Key"] for request in receiver.requests]
    assert len(calls) == len(set(calls)) == 2 * BLOCK * BLOCKS, "each save is told, once"
    assert before <= set(Delivery.objects.values_list("pk", flat=True))
    assert Delivery.objects.count() == len(before) + len(calls)
    assert Attempt.objects.count() == 1 + len(calls)
    assert steps > BLOCKS / 2, "it was at work meanwhile"
    report(
        f"saves beside pruning, {connection.vendor}",
        steps=steps,
        p95_ms_with=round(p95(with_it), 1),
        p95_ms_without=round(p95(without), 1),
    )
    # Not more than one step's worth, on a machine that does other things as well.
    assert p95(with_it) < 3 * p95(without) + 50


def test_with_a_retention_of_nothing_each_delivery_goes_once_it_is_made(
    declare, receiver, switch, settings
):
    declare(Order)
    settings.SIGNAL_DISPATCH_RETENTION = {"delivered": timedelta(0)}
    switch["now"] = True
    for number in range(50):
        Order.objects.create(number=f"A-{number}")
    eventually(lambda: not Delivery.objects.exists(), 60)

    keys = [request.headers["Idempotency-Key"] for request in receiver.requests]
    assert len(keys) == len(set(keys)) == 50
    assert not Attempt.objects.exists()
