"""Several hosts on one database: when one of them vanishes, the others make its calls."""

import json
import threading

import pytest

from signal_dispatch.models import Attempt, Delivery
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
from tests.settings import DATABASE
from tests.waiting import eventually

pytestmark = [
    *over_processes,
    pytest.mark.skipif(DATABASE == "sqlite", reason="The file of SQLite is on one host."),
]

#: Hosts are processes with settings and clocks of their own: of each a process that saves, and
#: sends from threads, and a worker.
HOSTS = {
    "tokyo": {"CLOCK_HOURS": "0.5", "SETTINGS": json.dumps({"TIME_ZONE": "Asia/Tokyo"})},
    "lima": {"CLOCK_HOURS": "-0.5", "SETTINGS": json.dumps({"TIME_ZONE": "America/Lima"})},
}


def start(fleet, receiver, host, *what):
    environment = {"DECLARED": "counted", "DATABASE_CHANGES": "{}", "HOST": host, **HOSTS[host]}
    return fleet.run("tests.acceptance.changed", receiver.url, *what, **environment)


def held_by(host):
    return Delivery.objects.filter(held_by__startswith=f"{host}:").exists()


def test_what_a_host_that_vanished_had_to_send_the_others_send(receiver, tmp_path):
    make_orders(scaled(20, 200))
    remote, total = Remote(receiver), str(scaled(15, 50))
    answering = threading.Event()
    answering.set()
    receiver.script = lambda request: (receiver.hold(answering), remote(request))[1]
    with Fleet(receiver.url, tmp_path) as fleet:
        savers = {host: start(fleet, receiver, host, "change", total, host) for host in HOSTS}
        workers = {host: start(fleet, receiver, host, "dispatch_worker") for host in HOSTS}
        eventually(lambda: senders() == set(HOSTS), 60)
        answering.clear()  # so both have something in hand
        eventually(lambda: held_by("tokyo") and held_by("lima"), 60)
        fleet.kill(savers["tokyo"])
        fleet.kill(workers["tokyo"])
        left_behind = held_by("tokyo")
        answering.set()
        fleet.join(savers["lima"])
        await_calm(60)
        fleet.end(workers["lima"])

    astray = [number for number, totals in remote.firsts.items() if totals != sorted(totals)]
    report(
        "hosts",
        told=len(remote.keys),
        kills=fleet.kills,
        duplicates=remote.duplicates,
        lost=len(committed() - set(remote.keys)),
        astray=len(astray),
    )
    assert left_behind, "it had something in hand"
    assert set(remote.keys) == committed()
    assert states() == {"delivered": len(remote.keys)}
    assert astray == []
    assert all(len(keys) == 1 for keys in remote.keys.values())
    assert remote.duplicates <= fleet.kills * DOUBLED_BY_A_KILL


def senders():
    return {name.partition(":")[0] for name in Attempt.objects.values_list("sender", flat=True)}
