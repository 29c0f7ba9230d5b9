"""The breaker over processes and a restart: its numbers are reached, and not passed."""

import json

import pytest

from signal_dispatch.models import Attempt, Delivery, EndpointState
from tests.acceptance.fleet import Fleet, over_processes
from tests.acceptance.soak import report
from tests.deliveries import delivery
from tests.settings import DATABASE

pytestmark = over_processes
ATTEMPTS = 10


@pytest.fixture
def fleet(receiver, tmp_path):
    """Start processes that call ``crm`` one call at a time, and try again after a minute."""
    receiver.reply(503)

    def start(pause=60.0, **keys):
        breaker = {"attempts": ATTEMPTS, "share": 0.7, "pause": pause}
        endpoint = {"BREAKER": breaker, "MAX_CONCURRENCY": 1} | keys
        return Fleet(receiver.url, tmp_path, RETRY_SECONDS="60", ENDPOINT=json.dumps(endpoint))

    return start


def due(count):
    for number in range(count):
        delivery(object_pk=number)


def is_open():
    return EndpointState.objects.filter(open_until__isnull=False).exists()


def test_it_opens_at_its_number_over_processes_and_stays_open_over_a_restart(fleet, receiver):
    with fleet() as processes:
        due(6)
        processes.join(processes.worker("--once"))
        assert (len(receiver.requests), is_open()) == (6, False)
        due(20)
        processes.join(processes.worker("--once"))
        assert (len(receiver.requests), is_open()) == (ATTEMPTS, True)
        processes.join(processes.worker("--once"))

    assert len(receiver.requests) == ATTEMPTS
    rows = Delivery.objects.all()
    assert set(rows.values_list("state", "held_by")) == {("pending", "")}
    assert sum(rows.values_list("attempts", flat=True)) == Attempt.objects.count() == ATTEMPTS


def test_processes_that_fail_at_once_reach_its_number_together(fleet, receiver):
    due(200)
    with fleet() as processes:
        workers = [processes.worker("--once") for _ in range(2)]
        for worker in workers:
            processes.join(worker)
    made = len(receiver.requests)
    report(f"{DATABASE}, breaker of {ATTEMPTS}, 2 processes", calls=made)

    assert is_open()
    assert ATTEMPTS <= made <= ATTEMPTS + 1, "one may have been in flight at the other process"
    assert Delivery.objects.filter(attempts=0, held_by="").count() == 200 - made
