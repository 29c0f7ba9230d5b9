"""Breakers, probes, pauses and rates with threads that really run, over real HTTP."""

import threading
import time
from collections import Counter
from itertools import pairwise

import pytest
from django.db import OperationalError

from signal_dispatch import (
    accounts,
    bars,
    counting,
    health,
    pausing,
    recovering,
    sender_threads,
    signals,
)
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.exceptions import LeaseLost
from signal_dispatch.models import Attempt, Delivery, EndpointMinute, EndpointState
from signal_dispatch.rates import rates
from signal_dispatch.scopes import Scope
from signal_dispatch.worker import Worker
from tests.deliveries import delivery
from tests.receiver import Receiver
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
]
SCOPE = Scope("", frozenset({"crm", "slack"}), frozenset({("shop.Told", "shop.order")}))


@pytest.fixture
def slack():
    """Play a second endpoint, which is well."""
    with Receiver() as made:
        yield made


@pytest.fixture
def site(settings, receiver, slack, declare):
    """Set keys of ``crm``, and run a worker for it and ``slack``."""
    declare(Order)
    made = []

    def site(*, breaker=None, **keys):
        crm = {
            "URL": receiver.url,
            "RETRY": {"delays": [0, 600]},
            "BREAKER": breaker,
            "DEADLINE": 1,
        }
        settings.SIGNAL_DISPATCH_ENDPOINTS = {
            "crm": crm | keys,
            "slack": {"URL": slack.url, "DEADLINE": 1},
        }
        made.append(Worker(lambda: SCOPE, sweep_seconds=0.3, max_sleep_seconds=0.3))
        return made[-1]

    yield site
    for each in made:
        each.stop(5)


def due(count, **values):
    return [delivery(object_pk=number, **values) for number in range(count)]


def is_open():
    return EndpointState.objects.filter(open_until__isnull=False).exists()


def attempts(endpoint="crm"):
    return Attempt.objects.filter(delivery__endpoint=endpoint).count()


# The breaker.


def test_one_call_at_a_time_stops_at_the_number(site, receiver):
    receiver.reply(503)
    due(30)
    mine = site(breaker={"attempts": 7}, MAX_CONCURRENCY=1)
    mine.start()
    eventually(is_open)
    mine.drain(10)

    assert len(receiver.requests) == attempts() == 7
    rows = Delivery.objects.filter(attempts=0)
    assert set(rows.values_list("state", "held_by")) == {("pending", "")}
    assert rows.count() == 23


def test_many_calls_at_a_time_pass_the_number_by_what_was_in_flight(site, receiver):
    receiver.reply(503)
    due(100)
    mine = site(breaker={"attempts": 10}, MAX_CONCURRENCY=4)
    mine.start()
    eventually(is_open)
    mine.drain(10)

    assert 10 <= len(receiver.requests) <= 10 + 3


def test_it_stays_closed_below_its_share(site, receiver):
    receiver.script = lambda request: (503 if len(receiver.requests) % 2 else 200, {}, b"")
    due(40)
    once = {"delays": [0]}
    mine = site(breaker={"attempts": 10, "share": 0.7}, MAX_CONCURRENCY=1, RETRY=once)
    mine.start()
    mine.drain(20)

    assert len(receiver.requests) == 40
    assert not is_open()
    mine.stop(5)
    assert counting.judged("default", "crm", 300) == (40, 20)


def test_without_one_all_is_tried(site, receiver):
    receiver.reply(503)
    due(30)
    mine = site(breaker=None)
    mine.start()
    mine.drain(20)

    assert len(receiver.requests) == 30
    assert not is_open()


def test_what_was_saved_is_given_back_when_it_opens(site, receiver):
    """Not only what a sweep took: leases of this process's own saves, and hints."""
    receiver.reply(503)
    mine = site(breaker={"attempts": 3}, MAX_CONCURRENCY=1)
    due(40)
    mine.start()
    eventually(is_open)

    eventually(lambda: not Delivery.objects.exclude(held_by="").exists())
    mine.drain(10)
    assert len(receiver.requests) == 3


def test_another_endpoint_goes_on_meanwhile(site, receiver, slack):
    receiver.reply(503)
    due(30)
    mine = site(breaker={"attempts": 3}, MAX_CONCURRENCY=1)
    mine.start()
    eventually(is_open)
    due(20, endpoint="slack")
    slack.wait_for(20)
    mine.drain(10)

    assert len(receiver.requests) == 3


def test_one_probe_at_a_time_until_it_is_well_then_all(site, receiver):
    receiver.reply(503)
    due(20)
    heard = []
    signals.breaker_closed.connect(note := lambda **kwargs: heard.append(kwargs["endpoint"]))
    mine = site(breaker={"attempts": 5, "pause": 0.4}, MAX_CONCURRENCY=1, DEADLINE=0.4)
    try:
        mine.start()
        eventually(is_open)
        opened = len(receiver.requests)
        receiver.wait_for(opened + 3)
        receiver.reply(200)
        well = len(receiver.requests)
        eventually(lambda: not is_open())
        mine.drain(20)
    finally:
        signals.breaker_closed.disconnect(note)
    probes = [request.at for request in receiver.requests][opened : opened + 3]

    assert heard == ["crm"]
    assert min(b - a for a, b in pairwise(probes)) >= 0.3
    assert Delivery.objects.filter(state="delivered").count() >= 20 - well
    # Those that failed on the way come forward now, although their own time is in ten minutes.
    eventually(lambda: Delivery.objects.filter(state="delivered").count() == 20)
    assert counting.judged("default", "crm", 300)[1] == 0


def test_a_new_delivery_probes_an_endpoint_that_had_nothing_to_be_probed_with(site, receiver):
    mine = site(breaker={"attempts": 5, "pause": 0.2})
    EndpointState.objects.create(endpoint="crm", open_until=DatabaseNow(-60))
    mine.start()
    mine.drain(10)
    assert is_open()
    due(3)

    eventually(lambda: not is_open())
    receiver.wait_for(3)


def test_a_probe_that_made_no_call_leaves_it_to_the_next(site, receiver, monkeypatch):
    mine = site(breaker={"attempts": 5, "pause": 600})
    EndpointState.objects.create(endpoint="crm", open_until=DatabaseNow(-1))
    monkeypatch.setattr(sender_threads, "deliver", lose_the_first(sender_threads.deliver))
    due(2)
    mine.start()

    eventually(lambda: not is_open())
    assert len(receiver.requests) >= 1


def lose_the_first(deliver):
    lost = []

    def once_lost(*arguments, **options):
        if not lost:
            lost.append(True)
            raise LeaseLost("somebody else has it")
        return deliver(*arguments, **options)

    return once_lost


# Pauses.


def test_what_is_in_hand_is_given_back_when_a_person_pauses(site, receiver):
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b"{}"))[1]
    due(30)
    mine = site(MAX_CONCURRENCY=1, DEADLINE=20)
    mine.start()
    receiver.wait_for(1)
    pausing.pause("crm", by="ann")
    eventually(lambda: Delivery.objects.exclude(held_by="").count() == 1, 5)
    go.set()
    eventually(lambda: Delivery.objects.filter(state="delivered").count() == 1)
    mine.drain(10)
    assert len(receiver.requests) == 1
    pausing.resume("crm", by="ann")

    receiver.wait_for(30)
    mine.drain(10)
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}


# Rates.


def test_a_rate_holds_over_the_threads_of_a_process(site, receiver, slack):
    due(12)
    due(12, endpoint="slack")
    rates.forget()
    mine = site(RATE="4/s")
    began = time.monotonic()
    mine.start()
    slack.wait_for(12)
    slack_took = time.monotonic() - began
    receiver.wait_for(12)
    mine.drain(10)
    at = [request.at for request in receiver.requests]

    assert at[-1] - at[0] >= 1.9, "4 at once, 4 after a second, 4 after two"
    assert slack_took < at[-1] - began, "who has no rate does not wait for it"
    seconds = Counter(int((moment - at[0] + 0.2) / 1.0) for moment in at)
    assert max(seconds.values()) <= 5
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}


def test_waiting_for_a_rate_is_no_loop(site, receiver, monkeypatch):
    asked = []
    wait = rates.seconds_to_wait
    monkeypatch.setattr(rates, "seconds_to_wait", lambda alias: asked.append(alias) or wait(alias))
    due(20)
    rates.forget()
    mine = site(RATE="5/m")
    mine.start()
    receiver.wait_for(5)
    time_out = time.monotonic() + 1.5
    eventually(lambda: time.monotonic() > time_out)

    assert len(receiver.requests) == 5
    assert len(asked) <= 5 + 8 + 2, "each that was in a sender's hand, and no more"
    mine.stop(5)
    assert Delivery.objects.filter(held_by="").count() == 20, "given back, each with its attempts"


def test_a_rate_that_can_not_be_told_loses_no_job(site, receiver, monkeypatch, caplog):
    wait, broken = rates.seconds_to_wait, [True]

    def break_once(alias):
        if broken:
            broken.clear()
            raise RuntimeError("no idea")
        return wait(alias)

    monkeypatch.setattr("signal_dispatch.sender_threads.RATE_FAULT_SECONDS", 0.1)
    monkeypatch.setattr(rates, "seconds_to_wait", break_once)
    due(1)
    mine = site()
    mine.start()
    receiver.wait_for(1)

    assert "The rate of the endpoint 'crm' can't be told." in caplog.text


# Counting.


def test_attempts_are_counted_by_endpoint_and_minute(site, receiver, slack):
    receiver.script = lambda request: (200 if len(receiver.requests) < 4 else 404, {}, b"{}")
    due(5)
    due(3, endpoint="slack")
    mine = site(breaker={})
    mine.start()
    mine.drain(10)
    mine.stop(5)

    def total(name, endpoint="crm"):
        rows = EndpointMinute.objects.filter(endpoint=endpoint)
        return sum(rows.values_list(name, flat=True))

    assert [total(name) for name in ("attempts", "delivered", "rejected")] == [5, 3, 2]
    assert [total(name) for name in ("answered_2xx", "answered_4xx", "unanswered")] == [3, 2, 0]
    assert total("attempts", "slack") == 3


def test_what_the_database_refused_to_count_is_counted_later(site, receiver, monkeypatch):
    add, away = counting.add, [True, True]

    def refuse(*arguments):
        if away:
            away.pop()
            raise OperationalError("gone away")
        add(*arguments)

    monkeypatch.setattr(accounts.counting, "add", refuse)
    receiver.reply(503)
    due(10)
    mine = site(breaker={"attempts": 3}, MAX_CONCURRENCY=1)
    mine.start()
    eventually(is_open, 20)
    mine.drain(10)

    assert len(receiver.requests) == 3


def test_what_could_not_be_judged_is_judged_later(site, receiver, monkeypatch):
    judged, away = counting.judged, [True, True]

    def refuse(*arguments):
        if away:
            away.pop()
            raise OperationalError("gone away")
        return judged(*arguments)

    monkeypatch.setattr(accounts.counting, "judged", refuse)
    receiver.reply(503)
    due(10)
    mine = site(breaker={"attempts": 3}, MAX_CONCURRENCY=1)
    mine.start()
    eventually(is_open, 20)
    mine.drain(10)

    assert len(receiver.requests) == 3
    assert sum(EndpointMinute.objects.values_list("attempts", flat=True)) == 3


# Recovery.


def test_the_first_success_after_a_failure_brings_what_waits_forward(site, receiver, monkeypatch):
    monkeypatch.setattr(health, "RECOVERY_SECONDS", 0.1)
    receiver.play((503, {}, b""), (200, {}, b""))
    due(1, available_at=DatabaseNow(-5))
    mine = site(breaker={}, MAX_CONCURRENCY=1)
    mine.start()
    eventually(lambda: Delivery.objects.filter(retried=True).exists())
    assert Delivery.objects.filter(state="delivered").count() == 0
    delivery(object_pk=2)

    eventually(lambda: Delivery.objects.filter(state="delivered").count() == 2)


def test_a_recovery_that_the_database_refused_is_made_later(site, receiver, monkeypatch):
    bring, away = recovering.bring_forward, [True]

    def refuse(*arguments):
        if away:
            away.pop()
            raise OperationalError("gone away")
        return bring(*arguments)

    monkeypatch.setattr(accounts, "bring_forward", refuse)
    receiver.play((503, {}, b""), (200, {}, b""))
    due(1)
    mine = site(breaker={}, MAX_CONCURRENCY=1)
    mine.start()
    eventually(lambda: Delivery.objects.filter(retried=True).exists())
    delivery(object_pk=2)

    eventually(lambda: Delivery.objects.filter(state="delivered").count() == 2)
    assert away == []


# Under test.


def test_a_worker_that_is_not_watching_heeds_none_of_it(site, receiver):
    receiver.reply(503)
    due(30)
    pausing.pause("crm", by="ann")
    site(breaker={"attempts": 3}, RATE="1/h")
    mine = Worker(lambda: SCOPE, sweep_seconds=0.3, watching=False)
    try:
        mine.start()
        mine.drain(10)
    finally:
        mine.stop(5)

    assert len(receiver.requests) == 30
    assert not EndpointMinute.objects.exists()
    assert bars.standing("default").barred != {}
