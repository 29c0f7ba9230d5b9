"""Never lost: whatever is committed is told, wherever and however often a process is killed."""

import threading

import pytest
from django.db import transaction

from signal_dispatch.models import Delivery
from tests.acceptance.fleet import (
    DOUBLED_BY_A_KILL,
    Fleet,
    Remote,
    await_calm,
    committed,
    make_orders,
    over_processes,
    states,
)
from tests.acceptance.soak import report, scaled
from tests.deliveries import delivery
from tests.settings import DATABASE
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = over_processes

DEFERRED = "deferred.DeferredBackend"
LEASE = 2


def counts(told, expected, fleet, remote):
    """Return the counts to be reported, of which the last two must be zero."""
    return {
        "told": len(expected),
        "kills": fleet.kills,
        "duplicates": remote.duplicates,
        "lost": len(expected - told),
        "stuck": Delivery.objects.unfinished().count(),
    }


@pytest.mark.parametrize(
    ("point", "backend", "saver", "worker"),
    [
        ("before_commit", "threads.ThreadsBackend", "before_commit:4", ""),
        ("after_commit", "threads.ThreadsBackend", "after_commit:4", ""),
        ("after_claim", DEFERRED, "", "after_claim"),
        ("mid_request", "threads.ThreadsBackend", "mid_request:4", "mid_request"),
        ("after_answer", "threads.ThreadsBackend", "after_answer:4", "after_answer"),
        ("before_settling", "threads.ThreadsBackend", "before_settling", "before_settling"),
    ],
)
def test_a_kill_at_this_point_loses_nothing(point, backend, saver, worker, receiver, tmp_path):
    remote = Remote(receiver)
    with Fleet(receiver.url, tmp_path, DECLARED="counted", LEASE_SECONDS=str(LEASE)) as fleet:
        saved = fleet.start("save", "20", "s", crash=saver, BACKEND=backend)
        armed = fleet.worker(crash=worker) if worker else None
        assert fleet.join(saved) == bool(saver)
        assert armed is None or fleet.join(armed)
        rescuer = fleet.worker()
        await_calm(LEASE + 30)
        fleet.end(rescuer)

    expected = {(number, 0) for number in Order.objects.values_list("number", flat=True)}
    told = set(remote.keys)
    report(f"killed {point}", **counts(told, expected, fleet, remote))
    assert told == expected, "no more and no less than what was committed"
    assert states() == {"delivered": len(expected)}
    assert all(len(keys) == 1 for keys in remote.keys.values())
    assert remote.duplicates <= fleet.kills * DOUBLED_BY_A_KILL


def test_kills_at_random_lose_nothing_and_keep_the_order(receiver, tmp_path):
    make_orders(scaled(20, 100))
    remote = Remote(receiver)
    savers = [
        ["change", str(scaled(12, 20)), f"s{n}"] for n in range(1 if DATABASE == "sqlite" else 2)
    ]
    crew = [*savers, ["dispatch_worker"], ["dispatch_worker"]]
    # A kill between mark and release parks a lane until the next repair.
    settings = {"DECLARED": "counted", "LEASE_SECONDS": str(LEASE), "REPAIR_SECONDS": "2"}
    with Fleet(receiver.url, tmp_path, **settings) as fleet:
        fleet.storm(crew, remote, scaled(8, 60))

    told = set(remote.keys)
    report("killed at random", **counts(told, committed(), fleet, remote))
    assert told == committed()
    assert states() == {"delivered": len(told)}
    assert all(len(keys) == 1 for keys in remote.keys.values())
    assert all(totals == sorted(totals) for totals in remote.firsts.values())
    assert fleet.kills >= 3
    assert remote.duplicates <= fleet.kills * DOUBLED_BY_A_KILL


def test_a_kill_doubles_no_more_than_what_was_in_flight_and_32_answers(receiver, tmp_path):
    for number in range(200):
        delivery(object_pk=number, body=b'{"number":"%d"}' % number)
    remote, begin = Remote(receiver), threading.Event()
    receiver.script = lambda request: (receiver.hold(begin), remote(request))[1]
    with Fleet(receiver.url, tmp_path, LEASE_SECONDS=str(LEASE)) as fleet:
        worker = fleet.worker("--concurrency", "16")
        receiver.wait_for(1, timeout=30)
        with transaction.atomic():  # from here on nothing can be recorded
            lock_the_outbox()
            begin.set()
            eventually(lambda: len(remote.taken) >= 32)
            # The senders pause: of the 64 that it holds no more come.
            receiver.closing.wait(1)
            fleet.kill(worker)
            taken = len(remote.taken)
        rescuer = fleet.worker()
        await_calm(60)
        fleet.end(rescuer)

    report("killed with unrecorded answers", taken=taken, duplicates=remote.duplicates)
    assert taken <= DOUBLED_BY_A_KILL
    assert remote.duplicates <= DOUBLED_BY_A_KILL
    assert len(remote.keys) == 200


def lock_the_outbox():
    if DATABASE == "sqlite":
        Delivery.objects.filter(pk=0).update(reason="")
    else:
        list(Delivery.objects.select_for_update().values_list("pk"))
