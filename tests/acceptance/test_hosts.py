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


class Pausing:
    """A remote that answers until it pauses; ``hanging`` are the keys of the calls since then."""

    def __init__(self, receiver):
        self.receiver, self.remote = receiver, Remote(receiver)
        self.going_on, self.hanging = threading.Event(), set()
        self.going_on.set()

    def __call__(self, request):
        if not self.going_on.is_set():
            self.hanging.add(request.headers["Idempotency-Key"])
        self.receiver.hold(self.going_on)
        return self.remote(request)

    def pause(self):
        self.going_on.clear()

    def keeps_waiting(self, host):
        """Say whether a call of this host hangs."""
        held = Delivery.objects.filter(held_by__startswith=f"{host}:")
        return held.filter(uid__in=list(self.hanging)).exists()


def test_what_a_host_that_vanished_had_to_send_the_others_send(receiver, tmp_path):
    make_orders(scaled(20, 200))
    receiver.script = pausing = Pausing(receiver)
    remote, total = pausing.remote, str(scaled(15, 50))
    with Fleet(receiver.url, tmp_path) as fleet:
        savers = {host: start(fleet, receiver, host, "change", total, host) for host in HOSTS}
        workers = {host: start(fleet, receiver, host, "dispatch_worker") for host in HOSTS}
        eventually(lambda: senders() == set(HOSTS), 60)
        pausing.pause()
        eventually(lambda: all(map(pausing.keeps_waiting, HOSTS)), 60)
        fleet.kill(savers["tokyo"])
        fleet.kill(workers["tokyo"])
        left_behind = pausing.keeps_waiting("tokyo")
        pausing.going_on.set()
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
