"""The breaker over processes and a restart: its numbers are reached, and not passed."""

import json
import time

import pytest
from django.core.management import call_command

from signal_dispatch.models import Attempt, Delivery, EndpointState
from tests.acceptance.fleet import Fleet, await_calm, over_processes
from tests.acceptance.rows import copy
from tests.acceptance.soak import report, scaled
from tests.deliveries import delivery
from tests.settings import DATABASE
from tests.waiting import eventually

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


def calls_between(receiver, began, ended):
    return len([request for request in receiver.requests if began < request.at < ended])


def test_a_storm_of_refusals_costs_no_attempts_beyond_its_probes(fleet, receiver):
    """Two processes, a thousand rows, and a remote that says 429 to all until it is well."""
    receiver.reply(429)
    pause, count = 1.0, scaled(1_000, 5_000)
    copy(delivery(), count - 1)
    with fleet(pause, MAX_CONCURRENCY=8, DEADLINE=0.5) as processes:
        workers = [processes.worker() for _ in range(2)]
        eventually(is_open, 60)
        opened = time.monotonic()
        receiver.wait_for(len(receiver.requests) + 3, timeout=30)
        storming = scaled(4, 60)
        receiver.wait(storming)
        ended = time.monotonic()
        # What was in flight when it opened may arrive a moment later.
        in_the_open = calls_between(receiver, opened + 0.5, ended)
        attempts = sum(Delivery.objects.values_list("attempts", flat=True))
        assert Delivery.objects.filter(state="pending").count() == count, "nothing is dropped"
        receiver.reply(200)
        await_calm(60)
        for worker in workers:
            processes.end(worker)
    report(
        f"{DATABASE}, 429 to {count:,} rows, breaker with pauses of {pause:g} s, 2 processes",
        attempts=attempts,
        while_open=in_the_open,
        seconds_open=ended - opened,
    )

    assert 2 <= in_the_open <= (ended - opened) / pause + 1
    assert attempts <= ATTEMPTS + 2 * 8 + (ended - opened) / pause + 1
    assert not is_open()
    calls = len(receiver.requests)
    assert (
        calls == Attempt.objects.count() == count + Attempt.objects.filter(status_code=429).count()
    )


def test_a_pause_by_a_person_holds_in_every_process_until_it_is_resumed(fleet, receiver):
    receiver.reply(200)
    with fleet() as processes:
        workers = [processes.worker() for _ in range(2)]
        due(10)
        receiver.wait_for(10, timeout=60)
        call_command(
            "dispatch_pause",
            "crm",
            "--reason",
            "They move house.",
            database=["default"],
            verbosity=0,
        )
        due(50)
        receiver.wait(2.5)  # two looks of each
        assert len(receiver.requests) == 10
        processes.kill(workers.pop())
        workers.append(processes.worker())
        eventually(lambda: "Sending for" in processes.output(workers[-1]), 60)
        receiver.wait(1.5)
        assert len(receiver.requests) == 10
        call_command("dispatch_pause", "crm", "--resume", database=["default"], verbosity=0)
        receiver.wait_for(60, timeout=30)
        await_calm(30)
        for worker in workers:
            processes.end(worker)

    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}
