"""When a process is full, when it is done, and whose leases it keeps."""

from math import inf

import pytest

from signal_dispatch.hand import (
    BURST_SECONDS,
    BUSY_SECONDS,
    LATE_SECONDS,
    LONG_BURST,
    LOOP_SECONDS,
    PATIENCE_SECONDS,
    Hand,
    Settled,
)
from signal_dispatch.jobs import Job
from signal_dispatch.models import Delivery, State
from signal_dispatch.settling import Settlement
from tests.once import ONCE

pytestmark = ONCE


def job(endpoint="crm", body=b""):
    return Job(Delivery(endpoint=endpoint, body=body), "default", 0.0)


def settled(of):
    return Settled(of, Settlement(of.delivery, State.DELIVERED))


@pytest.fixture
def hand():
    return Hand(queue_size=3, queue_bytes=10_000)


def test_leases_that_may_still_become_jobs_take_room(hand):
    hand.queue.put(job())
    hand.watched["default", 1] = 0.0
    assert not hand.is_full
    hand.to_read["default", 2] = 0.0

    assert hand.is_full


def test_bytes_fill_it_too(hand):
    hand.queue.put(job(body=b"x" * 20_000))

    assert hand.is_full


def test_it_is_empty_when_nothing_will_be_sent_or_recorded(hand):
    assert hand.is_empty
    hand.watched["default", 1] = 0.0
    assert hand.is_empty, "its transaction may never commit"


def fill_queue(hand):
    hand.queue.put(job())


def fill_flight(hand):
    hand.queue.put(job())
    hand.queue.take()


@pytest.mark.parametrize(
    "fill",
    [
        fill_queue,
        fill_flight,
        lambda hand: hand.settled.append(settled(job())),
        lambda hand: setattr(hand, "recording", 1),
        lambda hand: hand.to_read.update({("default", 1): 0.0}),
        lambda hand: hand.to_look.add(("default", "lane")),
        lambda hand: setattr(hand, "looking", 1),
        lambda hand: hand.stale.append(job()),
    ],
)
def test_it_is_not_empty_while(hand, fill):
    fill(hand)

    assert not hand.is_empty


def test_answers_count_until_they_are_in_the_database(hand):
    hand.settled.append(settled(job()))
    hand.recording = 2

    assert hand.unrecorded == 3


def test_leases_are_kept_until_the_record_is_written(hand):
    flying, ready, stale, done = (job() for _ in range(4))
    hand.queue.put(flying)
    hand.queue.take()
    hand.queue.put(ready)
    hand.stale.append(stale)
    hand.settled.append(settled(done))

    assert set(hand.held()) == {flying, ready, stale, done}


def test_an_endpoint_has_as_many_calls_in_flight_as_its_settings_say(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": "https://crm.example.com/", "MAX_CONCURRENCY": 2}
    }
    hand = Hand(10, 10**6)
    for endpoint in ("crm", "crm", "crm", "gone", "gone"):
        hand.queue.put(job(endpoint))
    taken = []
    while (taking := hand.queue.take()) is not None:
        taken.append(taking.delivery.endpoint)

    assert sorted(taken) == ["crm", "crm", "gone"], "one for what settings do not know"


# Giving way to the threads that save.


@pytest.fixture
def clock(monkeypatch):
    """Let the test say what time it is: ``clock[0]``."""
    now = [1000.0]
    for module in ("hand", "queueing"):
        monkeypatch.setattr(f"signal_dispatch.{module}.monotonic", lambda: now[0])
    return now


def loop(hand, clock, *, seconds, took=0.001):
    """Save again and again for so long, after what makes it a loop; so long took a call."""
    hand.took = took
    for _ in range(LONG_BURST):
        hand.note_save()
    until = clock[0] + seconds
    while clock[0] < until:
        clock[0] = min(until, clock[0] + LOOP_SECONDS / 2)
        hand.note_save()


def test_no_call_begins_while_a_loop_saves(hand, clock):
    loop(hand, clock, seconds=0)
    hand.queue.put(job())
    loop(hand, clock, seconds=1)
    assert hand.gives_way == pytest.approx(LOOP_SECONDS)
    clock[0] += LOOP_SECONDS

    assert hand.gives_way == 0


def test_but_one_that_goes_on_has_to_bear_with_it(hand, clock):
    hand.note_save()
    hand.queue.put(job())
    loop(hand, clock, seconds=PATIENCE_SECONDS - LOOP_SECONDS / 2)
    assert hand.gives_way == pytest.approx(LOOP_SECONDS / 2)
    loop(hand, clock, seconds=LOOP_SECONDS / 2)
    assert hand.gives_way == 0
    loop(hand, clock, seconds=PATIENCE_SECONDS)
    assert hand.gives_way == 0, "it waits still"


def test_pauses_of_the_loop_make_nothing_wait_for_longer(hand, clock):
    hand.note_save()
    hand.queue.put(job())
    for _ in range(3):
        loop(hand, clock, seconds=PATIENCE_SECONDS / 3)
        clock[0] += BURST_SECONDS
    loop(hand, clock, seconds=0)

    assert hand.gives_way == 0


@pytest.mark.parametrize("waits", ["queue", "to_read"])
def test_patience_begins_when_nothing_waits(hand, clock, waits):
    hand.note_save()
    if waits == "queue":
        hand.queue.put(job())
    else:
        hand.to_read["default", 1] = clock[0]
    loop(hand, clock, seconds=PATIENCE_SECONDS)
    assert hand.next_read != pytest.approx(clock[0] + LOOP_SECONDS)
    hand.queue.clear()
    hand.to_read.clear()
    loop(hand, clock, seconds=0)
    hand.queue.put(job())

    assert hand.gives_way == pytest.approx(LOOP_SECONDS)


@pytest.mark.parametrize("took", [LATE_SECONDS, inf])
def test_calls_that_mostly_wait_need_not_wait_for_it(hand, clock, took):
    hand.queue.put(job())
    loop(hand, clock, seconds=1, took=took)

    assert hand.gives_way == 0


def test_nor_does_what_is_sent_at_the_end(hand, clock):
    hand.note_save()
    hand.queue.put(job())
    loop(hand, clock, seconds=0)
    hand.finishing = True

    assert hand.gives_way == 0


@pytest.mark.parametrize(("saves", "apart"), [(LONG_BURST - 1, 0.0), (100, LOOP_SECONDS)])
def test_other_saves_keep_nobody_waiting(hand, clock, saves, apart):
    hand.took = 0.001
    hand.note_save()
    hand.queue.put(job())
    for _ in range(saves - 1):
        clock[0] += apart
        hand.note_save()

    assert hand.gives_way == 0


@pytest.fixture
def busy(clock, hand):
    """Return a hand with one call just begun, and one job ready."""
    hand.queue.put(job("crm"))
    hand.queue.take()
    hand.queue.put(job("slack"))
    return hand


def flying(hand):
    (job,) = set(hand.queue.held()) - set(hand.queue.ready())
    return job


def test_a_call_begins_when_the_one_before_is_done(busy):
    assert busy.gives_way == pytest.approx(BUSY_SECONDS)
    busy.queue.done(flying(busy))

    assert busy.gives_way == 0


def test_or_waits_for_its_answer(busy, clock):
    clock[0] += BUSY_SECONDS

    assert busy.gives_way == 0


def test_without_a_job_that_may_go_nobody_gives_way(busy):
    busy.queue.take()

    assert busy.gives_way == 0
