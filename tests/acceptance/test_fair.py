"""An endpoint that hangs, with a pile of due deliveries, and a healthy one beside it."""

import json
import statistics

import pytest
from django.db import connection

from tests.acceptance.fleet import Fleet, over_processes
from tests.acceptance.rows import copy, tidy
from tests.acceptance.soak import SOAKING, report, scaled
from tests.deliveries import delivery
from tests.receiver import Receiver
from tests.settings import DATABASE
from tests.waiting import eventually

pytestmark = [
    *over_processes,
    pytest.mark.skipif(
        connection.vendor == "mysql", reason="PostgreSQL and SQLite show it; this takes its time."
    ),
]
EVERY_SECONDS = 0.05
P95_SECONDS = 0.25
#: How many times what it takes alone it may take in the short form, which shares its machine with
#: other runs: there it may take longer than those seconds alone.
MOST = 1.5
PILE = 5_000


@pytest.fixture
def hanging():
    """Play an endpoint that takes calls and answers none."""
    with Receiver(lambda request: (hanging.wait(60), (200, {}, b""))[1]) as hanging:
        yield hanging


def pile_up():
    """Let very many deliveries to the one that hangs be due, first attempts and retries."""
    for many, values in ((PILE * 3 // 5, {}), (PILE * 2 // 5, {"retried": True, "attempts": 1})):
        copy(delivery(endpoint="hanging", **values), many - 1)
    tidy()


def commits(output, prefix):
    """Return when each order was committed, as its saver printed between what it logged."""
    lines = [line.split() for line in output.splitlines() if line.startswith(f"{prefix}-")]
    return {number: float(at) for number, at in lines}


def latencies(receiver, committed):
    """Return the seconds from commit to arrival of each order."""
    arrived = {}
    for request in receiver.requests:
        arrived.setdefault(request.json["number"], request.at)
    assert set(committed) <= set(arrived), "all of them arrived"
    return sorted(arrived[number] - at for number, at in committed.items())


#: Orders that are not counted: a worker that had nothing to do looks once a second.
WARM_UP = 25


def run(receiver, directory, hanging, seconds, *, worker):
    """Save orders for so long, and return how long their calls took to arrive."""
    receiver.reply(200)
    more = {"hanging": {"URL": hanging.url}}
    count, already = WARM_UP + int(seconds / EVERY_SECONDS), len(receiver.requests)
    prefix = directory.name
    directory.mkdir()
    with Fleet(
        receiver.url, directory, DEADLINE="30", LEASE_SECONDS="60", MORE_ENDPOINTS=json.dumps(more)
    ) as processes:
        if worker:
            sender = processes.worker()
            eventually(lambda: "Sending for" in processes.output(sender), 60)
        backend = {"BACKEND": "deferred.DeferredBackend"} if worker else {}
        saver = processes.start("save_steadily", str(count), str(EVERY_SECONDS), prefix, **backend)
        processes.join(saver, timeout=seconds + 60)
        receiver.wait_for(already + count, timeout=20)
        committed = commits(processes.output(saver), prefix)
    return latencies(receiver, dict(list(committed.items())[WARM_UP:]))


@pytest.mark.parametrize("worker", [False, True], ids=["threads", "worker"])
def test_a_healthy_endpoint_does_not_notice_one_that_hangs(receiver, hanging, tmp_path, worker):
    alone = run(receiver, tmp_path / "alone", hanging, scaled(4, 60), worker=worker)
    pile_up()
    beside = run(receiver, tmp_path / "beside", hanging, scaled(10, 300), worker=worker)
    p95_alone, p95 = (statistics.quantiles(each, n=20)[-1] for each in (alone, beside))
    report(
        f"{DATABASE}, {'worker' if worker else 'threads'}, beside {PILE:,} for one that hangs",
        calls=len(beside),
        p50_ms=1000 * statistics.median(beside),
        p95_ms=1000 * p95,
        max_ms=1000 * beside[-1],
        p50_ms_alone=1000 * statistics.median(alone),
        p95_ms_alone=1000 * p95_alone,
    )

    assert hanging.requests, "it was called"
    assert p95 < (P95_SECONDS if SOAKING else max(P95_SECONDS, MOST * p95_alone))
