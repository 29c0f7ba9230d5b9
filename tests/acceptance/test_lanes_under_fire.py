"""No lane sleeps: whoever comes while the one before is being settled is not forgotten."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from signal_dispatch.lanes import lane_of
from signal_dispatch.models import Delivery, State
from tests.acceptance.fleet import (
    Fleet,
    Remote,
    await_calm,
    committed,
    make_lanes,
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

SAVERS = 2 if DATABASE == "sqlite" else 4
NEVER = "360000"


class Watch:
    """Look, at each call, for a delivery before it in its lane that is still unfinished."""

    def __init__(self, receiver, remote):
        self.early = []
        self._remote = remote
        # One thread, so that there is one connection, which it closes in the end.
        self._thread = ThreadPoolExecutor(max_workers=1)
        receiver.script = self

    def __call__(self, request):
        self._thread.submit(self._look, request.headers["Idempotency-Key"]).result()
        return self._remote(request)

    def _look(self, uid):
        mine = Delivery.objects.get(uid=uid)
        before = Delivery.objects.unfinished().filter(lane=mine.lane, pk__lt=mine.pk)
        self.early += before.values_list("pk", flat=True)

    def close(self):
        self._thread.submit(connections.close_all).result()
        self._thread.shutdown()


@pytest.fixture
def remote(receiver):
    return Remote(receiver)


@pytest.fixture
def watch(receiver, remote) -> Iterator[Watch]:
    watch = Watch(receiver, remote)
    yield watch
    receiver.close()
    watch.close()


def count(what, remote, watch, **more):
    report(
        what,
        changes=len(committed()),
        parked=Delivery.objects.filter(state=State.WAITING).count(),
        early=len(watch.early),
        duplicates=remote.duplicates,
        **more,
    )


def test_followers_recorded_while_their_head_is_settled_are_all_sent(
    receiver, remote, watch, tmp_path
):
    make_orders(4)
    with Fleet(receiver.url, tmp_path, DECLARED="counted", REPAIR_SECONDS=NEVER) as fleet:
        total = str(scaled(50, 2500))
        savers = [fleet.start("change", total, f"s{n}") for n in range(SAVERS)]
        for saver in savers:
            fleet.join(saver, 360)
        # Not "--once": that leaves what a saver which ended in haste holds for some seconds more.
        worker = fleet.worker()
        await_calm(120)
        fleet.end(worker)

    count("lanes", remote, watch)
    assert states() == {"delivered": len(committed())}, "a WAITING one is parked for ever"
    assert watch.early == []
    assert set(remote.keys) == committed()
    assert all(totals == sorted(totals) for totals in remote.firsts.values())


@pytest.mark.skipif(
    DATABASE == "sqlite", reason="No head is settled there while a saver's transaction is open."
)
@pytest.mark.parametrize("way", ["_save_under_lock", "_save_in_autocommit", "_update_and_enqueue"])
def test_a_follower_that_commits_after_its_head_was_settled_is_sent(
    way, receiver, remote, tmp_path
):
    make_orders(1)
    order, go = Order.objects.get(), threading.Event()
    lane = lane_of("", "crm", "shop.Counted", "shop.order", order.pk)
    made = delivery(
        dispatch="shop.Counted", object_pk=order.pk, lane=lane, body=b'{"number": "o-0"}'
    )
    receiver.script = lambda request: (receiver.hold(go), remote(request))[1]
    with Fleet(receiver.url, tmp_path, DECLARED="counted", REPAIR_SECONDS=NEVER) as fleet:
        worker = fleet.worker()
        receiver.wait_for(1, timeout=30)
        saver = fleet.start("change", "1", "s", way, crash="pause:before_commit")
        fleet.await_pause(saver)
        go.set()
        eventually(lambda: Delivery.objects.filter(pk=made.pk, state="delivered").exists(), 30)
        fleet.end(worker)  # so it has looked for a next one, and seen none
        assert Delivery.objects.count() == 1
        fleet.wake(saver)
        fleet.join(saver)

    assert states() == {"delivered": 2}
    assert remote.firsts == {"o-0": [0, 1]}


def test_processes_that_die_before_they_release_park_nothing(receiver, remote, watch, tmp_path):
    make_orders(6)
    settings = {"DECLARED": "counted", "LEASE_SECONDS": "3", "REPAIR_SECONDS": "1"}
    with Fleet(receiver.url, tmp_path, **settings) as fleet:
        worker = fleet.worker()
        for life in range(scaled(3, 40)):
            crash = f"after_mark:{life % 5 + 1}"
            savers = [fleet.start("change", "30", f"s{life}{n}", crash=crash) for n in range(2)]
            for saver in savers:
                fleet.join(saver)
        await_calm(60)
        fleet.end(worker)

    count("lanes whose releaser died", remote, watch, kills=fleet.kills)
    assert fleet.kills > 0
    assert watch.early == []
    assert states() == {"delivered": len(committed())}
    assert set(remote.keys) == committed()
    assert all(totals == sorted(totals) for totals in remote.firsts.values())


def test_a_lane_whose_releaser_died_is_found_without_another_change(
    receiver, remote, watch, tmp_path
):
    make_lanes(10, 3)
    with Fleet(receiver.url, tmp_path, LEASE_SECONDS="3") as fleet:
        assert fleet.join(fleet.worker(crash="after_mark", REPAIR_SECONDS=NEVER))
        marked = Delivery.objects.filter(state=State.DELIVERED).values("lane")
        forgotten = Delivery.objects.filter(lane__in=marked).filter(state=State.PENDING)
        assert marked
        assert not forgotten, "they are all parked"
        worker = fleet.worker(REPAIR_SECONDS="1")
        await_calm(60)
        fleet.end(worker)

    count("lanes parked by a kill", remote, watch)
    assert watch.early == []
    assert states() == {"delivered": 30}
    assert all(totals == [0, 1, 2] for totals in remote.firsts.values())
