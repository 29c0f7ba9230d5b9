"""Hosts that disagree about the hour, and a database server in another time zone."""

import time
from collections import defaultdict

import pytest

from signal_dispatch.clocks import SecondsFromNow
from signal_dispatch.models import Delivery
from tests.acceptance import changed
from tests.acceptance.soak import report, scaled
from tests.settings import DATABASE
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory", reason="Another process can't see an in-memory database."
    ),
]

#: The session's time zone, which Django leaves to the server on MariaDB and sets on PostgreSQL.
ELSEWHERE = {
    "mariadb": {"OPTIONS": {"init_command": "SET time_zone = '+03:00'"}},
    "postgres": {"TIME_ZONE": "Asia/Tokyo"},
}.get(DATABASE)


def test_leases_and_retries_keep_their_times_on_hosts_an_hour_apart(receiver):
    receiver.script = refuse_first(receiver)
    each = scaled(20, 500)
    savers = [
        changed.start(receiver.url, "save", str(each), f"p{hours}", clock_hours=hours)
        for hours in (-1, 1)
    ]
    workers = [
        changed.start(receiver.url, "dispatch_worker", clock_hours=hours, databases=ELSEWHERE)
        for hours in (1, -1)
    ]
    try:
        for saver in savers:
            changed.finish(saver)
        eventually(lambda: not Delivery.objects.unfinished().exists(), 30 + each / 5)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            changed.finish(worker)
    tries = defaultdict(list)
    for request in receiver.requests:
        tries[request.headers["Idempotency-Key"]].append(request.at)
    early = [times for times in tries.values() if times[1] - times[0] < 0.9]
    twice = [times for times in tries.values() if len(times) > 2]
    report("hosts two hours apart", calls=len(tries), early=len(early), twice=len(twice))

    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
    assert len(tries) == 2 * each
    assert (early, twice) == ([], [])


def refuse_first(receiver):
    seen = set()

    def script(request):
        key = request.headers["Idempotency-Key"]
        if key in seen:
            return 200, {}, b"{}"
        seen.add(key)
        # Not before a second is over, also where the endpoint is found well again meanwhile.
        return 503, {"Retry-After": "1"}, b""

    return script


@pytest.mark.parametrize(("saver", "worker"), [(1, -1), (-1, 1)])
def test_what_a_host_with_another_hour_left_is_taken_when_its_lease_ends(receiver, saver, worker):
    receiver.script = lambda request: (receiver.wait(5), (200, {}, b"{}"))[1]
    left = changed.start(receiver.url, "save-and-die", "20", "k", clock_hours=saver)
    left.communicate(timeout=60)
    ends, made = lease_ends(), len(receiver.requests)
    receiver.script = lambda request: (200, {}, b"{}")
    taker = changed.start(receiver.url, "dispatch_worker", clock_hours=worker, databases=ELSEWHERE)
    try:
        # The lease is 4 s, and this far from an hour.
        eventually(lambda: not Delivery.objects.unfinished().exists(), 30)
    finally:
        taker.terminate()
        changed.finish(taker)

    assert ends, "some were left"
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
    taken = {r.headers["Idempotency-Key"]: r.at for r in receiver.requests[made:]}
    assert [key for key, at in taken.items() if at < ends[key]] == []


def lease_ends():
    """Return when each lease ends, by ``monotonic()`` and not later than the database thinks."""
    now = time.monotonic()
    held = Delivery.objects.exclude(held_by="").annotate(left=SecondsFromNow("available_at"))
    return {str(uid): now + float(left) for uid, left in held.values_list("uid", "left")}
