"""Once: while nothing fails, each delivery is sent exactly once, however many processes send."""

import pytest

from signal_dispatch.models import Attempt, Delivery
from tests.acceptance.fleet import Fleet, Remote, await_calm, over_processes, states
from tests.acceptance.soak import report, scaled
from tests.deliveries import new
from tests.settings import DATABASE
from tests.waiting import eventually

pytestmark = over_processes

PROCESSES = [1, 2] if DATABASE == "sqlite" else [scaled(4, 8)]


@pytest.mark.parametrize("processes", PROCESSES)
def test_processes_of_8_threads_send_each_delivery_once(processes, receiver, tmp_path):
    remote, rows = Remote(receiver), scaled(400, 10_000)
    # Slow enough that nobody is done before the others woke up.
    receiver.script = lambda request: (receiver.wait(0.05), remote(request))[1]
    with Fleet(receiver.url, tmp_path) as fleet:
        workers = [fleet.worker("--concurrency", "8") for _ in range(processes)]
        for worker in workers:
            eventually(lambda worker=worker: "Sending for" in fleet.output(worker), 60)
        make_due(rows)
        await_calm(60 + rows / 20)
        for worker in workers:
            fleet.end(worker)

    senders = set(Attempt.objects.values_list("sender", flat=True))
    report(
        f"once, {processes} x 8",
        sent=len(remote.taken),
        duplicates=remote.duplicates,
        lost=rows - len(remote.keys),
        senders=len(senders),
    )
    assert len(remote.taken) == len(remote.keys) == rows
    assert states() == {"delivered": rows}
    assert Attempt.objects.count() == rows
    assert len(senders) > 1 or processes == 1


def make_due(count):
    from signal_dispatch.clocks import DatabaseNow

    rows = [new(object_pk=n, method="POST", body=b'{"number": "%d"}' % n) for n in range(count)]
    for row in rows:
        row.created_at = row.available_at = DatabaseNow()
    Delivery.objects.bulk_create(rows, batch_size=500)
