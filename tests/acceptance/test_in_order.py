"""In order: each object's calls go out as its changes committed, and a failing one waits alone."""

import threading

from signal_dispatch.models import Delivery
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
from tests.settings import DATABASE
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = over_processes

SAVERS = 1 if DATABASE == "sqlite" else 4
FEW = 1 if DATABASE == "sqlite" else 2


def test_changes_arrive_in_commit_order_through_errors_and_kills(receiver, tmp_path):
    make_orders(scaled(15, 200))
    remote = Remote(receiver, failing=0.15)
    savers = [["change", str(scaled(10, 20)), f"s{number}"] for number in range(SAVERS)]
    settings = {"DECLARED": "counted", "LEASE_SECONDS": "3", "REPAIR_SECONDS": "2"}
    with Fleet(receiver.url, tmp_path, RETRY_SECONDS="0.1", **settings) as fleet:
        fleet.storm([*savers, ["dispatch_worker"]], remote, scaled(5, 40))

    astray = [number for number, totals in remote.firsts.items() if totals != sorted(totals)]
    report(
        "in order",
        told=len(remote.keys),
        refused=remote.refused,
        kills=fleet.kills,
        duplicates=remote.duplicates,
        lost=len(committed() - set(remote.keys)),
        astray=len(astray),
    )
    assert astray == []
    assert set(remote.keys) == committed()
    assert states() == {"delivered": len(remote.keys)}
    assert remote.refused > 0


def test_an_object_whose_calls_fail_delays_itself_only(receiver, tmp_path):
    make_orders(6)
    remote, mended = Remote(receiver), threading.Event()

    def script(request):
        if request.json["number"] == "o-0" and not mended.is_set():
            return 500, {}, b""
        return remote(request)

    receiver.script = script
    with Fleet(receiver.url, tmp_path, DECLARED="counted", RETRY_SECONDS="0.5") as fleet:
        savers = [fleet.start("change", "6", f"s{number}") for number in range(FEW)]
        worker = fleet.worker()
        for saver in savers:
            fleet.join(saver)
        others = {change for change in committed() if change[0] != "o-0"}
        eventually(lambda: others <= set(remote.keys), 60)
        assert set(remote.firsts) == {number for number, _total in others}
        assert Delivery.objects.unfinished().values("lane").distinct().count() == 1
        mended.set()
        await_calm(60)
        fleet.end(worker)

    assert remote.firsts["o-0"] == sorted(remote.firsts["o-0"])
    assert set(remote.keys) == committed()


def test_a_change_that_is_given_up_lets_the_next_one_go(receiver, tmp_path):
    make_lanes(3, 5)
    remote = Remote(receiver)

    def script(request):
        return (400, {}, b"") if request.json["total"] == 2 else remote(request)

    receiver.script = script
    with Fleet(receiver.url, tmp_path, REPAIR_SECONDS="360000") as fleet:
        worker = fleet.worker()
        await_calm(60)
        fleet.end(worker)

    assert list(remote.firsts.values()) == [[0, 1, 3, 4]] * 3
    assert states() == {"delivered": 12, "failed": 3}


def test_latest_wins_sends_the_last_state_and_records_what_it_replaced(receiver, tmp_path):
    make_orders(scaled(8, 100))
    remote = Remote(receiver, failing=0.15)
    savers = [["change", str(scaled(15, 20)), f"s{number}"] for number in range(SAVERS)]
    # A kill between a mark and the release leaves its lane to the repair.
    settings = {"DECLARED": "latest", "LEASE_SECONDS": "3", "RETRY_SECONDS": "0.1"}
    settings["REPAIR_SECONDS"] = "2"
    with Fleet(receiver.url, tmp_path, **settings) as fleet:
        fleet.storm([*savers, ["dispatch_worker"]], remote, scaled(3, 40))

    rows = {d.pk: d for d in Delivery.objects.all()}
    replaced = [d for d in rows.values() if d.state == "cancelled"]
    report(
        "latest wins",
        recorded=len(rows),
        replaced=len(replaced),
        sent=len(remote.keys),
        kills=fleet.kills,
        duplicates=remote.duplicates,
    )
    assert all(totals == sorted(totals) for totals in remote.firsts.values())
    lasts = {number: totals[-1] for number, totals in remote.firsts.items()}
    assert lasts == {order.number: int(order.total) for order in Order.objects.all()}
    assert replaced
    for delivery in replaced:
        heir = rows[delivery.replaced_by_id]
        assert heir.pk > delivery.pk
        assert heir.lane == delivery.lane
    assert {d.state for d in rows.values()} == {"cancelled", "delivered"}
