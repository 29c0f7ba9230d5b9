"""Alarms over processes and restarts: once an incident, whoever notices it."""

import json

import pytest

from signal_dispatch.models import Attempt, Delivery, EndpointState
from tests.acceptance.fleet import Fleet, await_calm, over_processes
from tests.deliveries import delivery
from tests.waiting import eventually

pytestmark = over_processes

FAILS = "The endpoint 'crm' fails"
OPENED = "The endpoint 'crm' is paused by its breaker"
# As the alarm begins its line; the line about each delivery has the same words.
FAILED = "is failed for good"


@pytest.fixture
def fleet(receiver, tmp_path):
    """Start processes that call ``crm``; ``told`` counts lines over all their outputs."""
    receiver.reply(503)

    def start(retry="60", **keys):
        endpoint = {"BREAKER": None, "MAX_CONCURRENCY": 2} | keys
        return Fleet(receiver.url, tmp_path, RETRY_SECONDS=retry, ENDPOINT=json.dumps(endpoint))

    return start


def due(count):
    for number in range(count):
        delivery(object_pk=number)


def told(processes, workers, words):
    return sum(processes.output(worker).count(words) for worker in workers)


def test_of_processes_that_fail_at_once_and_after_a_restart_one_tells_it(fleet):
    with fleet() as processes:
        due(40)
        workers = [processes.worker() for _ in range(2)]
        eventually(lambda: Attempt.objects.count() == 40, 60)
        eventually(lambda: told(processes, workers, FAILS) == 1, 30)
        processes.kill(workers[0])
        workers.append(processes.worker())
        due(20)
        eventually(lambda: Attempt.objects.count() == 60, 60)
        for worker in workers[1:]:
            processes.end(worker)

        assert told(processes, workers, FAILS) == 1
    assert EndpointState.objects.get().failing_since is not None
    assert set(Delivery.objects.values_list("state", "attempts")) == {("pending", 1)}


def test_a_breaker_that_opens_again_after_its_probes_is_told_once(fleet, receiver):
    with fleet(BREAKER={"attempts": 4, "pause": 0.3}) as processes:
        due(6)
        workers = [processes.worker() for _ in range(2)]
        eventually(lambda: told(processes, workers, OPENED) == 1, 60)
        receiver.reply(200)
        await_calm(60)
        receiver.reply(503)
        due(40)  # far more fail than were delivered
        words = "attempts at the endpoint 'crm' failed"
        eventually(lambda: told(processes, workers, words) == 2, 60)
        for worker in workers:
            processes.end(worker)

        assert told(processes, workers, OPENED) == 1


def test_of_many_failed_deliveries_one_is_told(fleet, receiver):
    receiver.reply(400)
    with fleet() as processes:
        due(40)
        workers = [processes.worker() for _ in range(2)]
        eventually(lambda: Delivery.objects.filter(state="failed").count() == 40, 60)
        for worker in workers:
            processes.end(worker)

        # One line of each delivery, and the alarm.
        assert told(processes, workers, FAILED) == 40 + 1
