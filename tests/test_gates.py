"""When a process asks which endpoints are barred, and what it then gives back."""

from math import inf

import pytest
from django.db import OperationalError

from signal_dispatch import gates
from signal_dispatch.bars import Standing
from signal_dispatch.gates import REFRESH_SECONDS, Gatekeeper
from signal_dispatch.hand import Hand
from signal_dispatch.jobs import Job
from signal_dispatch.models import Delivery
from tests.once import ONCE

pytestmark = ONCE


class Notices:
    """Count how often those who wait were told."""

    def __init__(self):
        self.sent = 0

    def notify_all(self):
        self.sent += 1


class Gate:
    """A gatekeeper by a clock that the test moves, and outboxes that answer what it says."""

    def __init__(self, monkeypatch, **options):
        self.now, self.answers = 1000.0, {}
        self.asked, self.returned = [], []
        monkeypatch.setattr(gates, "monotonic", lambda: self.now)
        monkeypatch.setattr(gates.bars, "standing", self.standing)
        monkeypatch.setattr(gates, "return_jobs", lambda hand, jobs: self.returned.extend(jobs))
        self.hand = Hand(100, 10**6, **options)
        self.hand.ready = Notices()
        self.keeper = Gatekeeper(self.hand)

    def standing(self, using):
        self.asked.append(using)
        answer = self.answers.get(using, {})
        if isinstance(answer, Exception):
            raise answer
        barred = answer() if callable(answer) else answer
        return Standing(barred, frozenset())

    def put(self, endpoint="crm", using="default", *, probe=False):
        job = Job(Delivery(endpoint=endpoint), using, 0.0, probe)
        self.hand.queue.put(job)
        return job

    @property
    def ready(self):
        return list(self.hand.queue.ready())

    @property
    def wait(self):
        return self.keeper.next_at() - self.now


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


# When it asks.


def test_with_nothing_ready_nobody_is_asked(gate):
    assert gate.wait == inf
    gate.keeper.refresh()

    assert gate.asked == []


def test_with_a_job_ready_it_is_asked_at_once_and_then_now_and_then(gate):
    gate.put()
    assert gate.wait <= 0
    gate.keeper.refresh()
    assert gate.wait == REFRESH_SECONDS
    gate.now += REFRESH_SECONDS - 0.01
    gate.keeper.refresh()
    assert gate.asked == ["default"]
    gate.now += 0.01
    assert gate.wait <= 0
    gate.keeper.refresh()

    assert gate.asked == ["default"] * 2


def test_each_outbox_is_asked_for_what_is_ready_of_its_own(gate):
    gate.put()
    gate.keeper.refresh()
    gate.now += 0.4
    gate.put(using="other")
    assert gate.wait <= 0
    gate.keeper.refresh()

    assert gate.asked == ["default", "other"]
    assert gate.wait == pytest.approx(REFRESH_SECONDS - 0.4), "the older answer ages first"


def test_an_answer_is_as_old_as_its_question(gate):
    def take_time():
        gate.now += 0.3
        return {}

    gate.put()
    gate.answers["default"] = take_time
    gate.keeper.refresh()

    assert gate.wait == pytest.approx(REFRESH_SECONDS - 0.3)


def test_what_could_not_be_asked_is_asked_again_and_nothing_is_given_back(gate):
    job = gate.put()
    gate.answers["default"] = OperationalError("gone away")
    with pytest.raises(OperationalError):
        gate.keeper.refresh()

    assert gate.wait <= 0
    assert (gate.ready, gate.returned) == ([job], [])


def test_one_that_does_not_watch_asks_nobody(monkeypatch):
    gate = Gate(monkeypatch, watching=False)
    job = gate.put()
    gate.answers["default"] = {"crm": inf}
    assert gate.wait == inf
    gate.keeper.refresh()
    gate.keeper.ask("default")

    assert gate.asked == []
    assert gate.ready == [job]


# What comes of the answer.


def test_what_is_ready_for_a_barred_endpoint_goes_back_and_nothing_else(gate):
    gate.put()
    flying = gate.hand.queue.take()
    barred, slack, other = gate.put(), gate.put("slack"), gate.put(using="other")
    gate.answers["default"] = {"crm": 30.0}
    gate.keeper.ask("default")

    assert gate.returned == [barred]
    assert gate.ready == [slack, other]
    assert flying in gate.hand.queue.held(), "a call in flight ends by itself"
    assert gate.hand.queue.take() is slack


@pytest.mark.parametrize(("left", "goes_back"), [(30.0, False), (inf, True)])
def test_a_probe_in_hand_goes_back_where_a_person_paused(gate, left, goes_back):
    probe = gate.put(probe=True)
    gate.answers["default"] = {"crm": left}
    gate.keeper.ask("default")

    assert gate.returned == [probe] * goes_back
    assert gate.ready == [probe] * (not goes_back)


def test_what_is_barred_no_longer_may_go_and_whoever_waits_is_told(gate):
    gate.answers["default"] = {"crm": 30.0}
    gate.keeper.ask("default")
    job = gate.put()
    assert gate.hand.queue.take() is None
    gate.answers["default"], told = {}, gate.hand.ready.sent
    gate.keeper.ask("default")

    assert gate.hand.ready.sent == told + 1
    assert gate.hand.queue.take() is job
