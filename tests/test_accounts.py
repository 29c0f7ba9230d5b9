"""What the outbox is told of calls, in which order, and what is kept where it refuses."""

from math import inf
from types import SimpleNamespace

import pytest
from django.db import OperationalError

from signal_dispatch import accounts, health
from signal_dispatch.accounts import Accountant
from signal_dispatch.hand import Hand
from signal_dispatch.health import COUNT_SECONDS
from signal_dispatch.jobs import Job, Place
from signal_dispatch.models import Attempt, Delivery
from tests.once import ONCE

pytestmark = ONCE
CRM, SLACK = Place("default", "crm"), Place("default", "slack")


class Account:
    """An accountant by a clock that the test moves, and all that it says, in order: ``said``."""

    def __init__(self, monkeypatch):
        self.now, self.said, self.away = 1000.0, [], []
        self.judged, self.moved = (1, 1), 0
        for module in (accounts, health):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)
        monkeypatch.setattr(accounts.counting, "add", self.add)
        monkeypatch.setattr(accounts.counting, "judged", self.judge)
        monkeypatch.setattr(accounts.bars, "open_breaker", self.open)
        monkeypatch.setattr(accounts.bars, "write", lambda *words: False)
        for name in ("close_breaker", "give_up_probe"):
            monkeypatch.setattr(accounts.bars, name, self.saying(name))
        monkeypatch.setattr(accounts, "bring_forward", self.saying("bring_forward"))
        self.hand = Hand(100, 10**6)
        sweeper = SimpleNamespace(expect=self.saying("expect"), ask=self.saying("sweep"))
        gatekeeper = SimpleNamespace(ask=self.saying("ask"), look_again=lambda using: None)
        self.accountant = Accountant(self.hand, sweeper, gatekeeper)

    def say(self, *words):
        if (words[0], words[-1]) in self.away or words[0] in self.away:
            raise OperationalError("gone away")
        self.said.append(words)

    def saying(self, name):
        def say(*words):
            self.say(name, *words)
            return self.moved

        return say

    def add(self, using, endpoint, counts):
        self.say("add", counts["breaker_attempts"], counts["breaker_failed"], endpoint)

    def judge(self, using, endpoint, window):
        self.say("judge", window, endpoint)
        return self.judged

    def open(self, using, endpoint, breaker, *, attempts, failed):
        self.say("open", attempts, failed, endpoint)

    def note(self, *statuses, place=CRM, probe=False):
        job = Job(Delivery(endpoint=place.endpoint), place.using, 0.0, probe)
        for status in statuses:
            outcome = "delivered" if status < 300 else "retry"
            attempt = Attempt(number=1, outcome=outcome, status_code=status, duration_ms=5)
            self.hand.health.note(job, attempt if status else None)

    def __call__(self, until=None):
        """Account, and return what was said."""
        self.said = []
        self.accountant.account(self.now if until is None else until)
        return self.said

    def is_refused(self):
        with pytest.raises(OperationalError):
            self()
        self.away = []
        return self.said

    def may_begin(self, place=CRM):
        return self.hand.health.may_begin(place)


@pytest.fixture
def account(monkeypatch, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": "https://crm.example.com", "BREAKER": {"window": 120, "pause": 40}},
        "slack": {"URL": "https://slack.example.com"},
        "calm": {"URL": "https://calm.example.com", "BREAKER": None},
    }
    return Account(monkeypatch)


# Counting and judging.


def test_a_failure_is_counted_and_then_judged_by_the_breakers_window(account):
    account.note(503)
    assert not account.may_begin()

    assert account() == [("add", 1, 1, "crm"), ("judge", 120, "crm")]
    assert account.may_begin()
    assert account() == []


def test_too_many_failures_open_the_breaker_and_it_is_heeded_at_once(account):
    account.note(503)
    account.judged = (10, 7)

    assert account()[2:] == [("open", 10, 7, "crm"), ("ask", "default"), ("expect", 40)]


def test_one_failure_less_opens_nothing_and_is_remembered(account):
    account.note(*[503] * 6)
    account.judged = (10, 6)
    account()
    assert "open" not in {words[0] for words in account.said}
    account.judged = (11, 6)
    account.note(503)

    assert not account.may_begin(), "one more could open it"


def test_what_other_processes_met_is_remembered(account):
    account.note(503)
    account.judged = (100, 1)
    account()
    account.note(503)

    assert account.may_begin(), "two of a hundred open nothing"


def test_successes_are_counted_in_heaps_and_not_judged(account):
    account.note(200)
    assert account() == []
    account.now += COUNT_SECONDS
    account.note(200)

    assert account() == [("add", 2, 0, "crm")]


def test_successes_that_were_told_are_remembered(account):
    account.note(*[200] * 20)
    account(inf)
    account.note(503)

    assert account.may_begin(), "one of 21 is not near"


def test_at_the_end_all_is_told(account):
    account.note(200)

    assert account(inf) == [("add", 1, 0, "crm")]


def test_without_a_breaker_nothing_opens(account):
    account.judged = (100, 100)
    account.note(503, place=Place("default", "calm"))

    assert account(inf)[0] == ("add", 1, 1, "calm")
    assert {words[0] for words in account.said} == {"add", "judge"}


# What the database refuses.


def test_what_could_not_be_counted_is_counted_once_later(account):
    account.note(503)
    account.away = ["add"]
    assert account.is_refused() == []
    assert not account.may_begin()

    assert account() == [("add", 1, 1, "crm"), ("judge", 120, "crm")]


def test_what_could_not_be_judged_is_judged_later_and_not_counted_twice(account):
    account.note(503)
    account.away = ["judge"]
    assert account.is_refused() == [("add", 1, 1, "crm")]
    assert not account.may_begin()

    assert account() == [("judge", 120, "crm")]
    assert account.may_begin()


def test_a_probe_that_could_not_be_concluded_is_concluded_later(account):
    account.note(503)
    account.note(200, probe=True)
    account.away = ["close_breaker"]
    told = [("add", 2, 1, "crm"), ("judge", 120, "crm")]
    # Retries come forward all the same, to wait for the breaker, and again once it is closed.
    assert account.is_refused() == [*told, ("bring_forward", "default", "crm")]

    assert account()[0] == ("close_breaker", "default", "crm")


def test_where_one_endpoint_is_refused_no_other_is_counted_twice_or_lost(account):
    account.note(503, place=SLACK)
    account.note(503)
    account.away = [("add", "crm")]
    said = account.is_refused() + account()

    counted = [words for words in said if words[0] == "add"]
    assert sorted(counted) == [("add", 1, 1, "crm"), ("add", 1, 1, "slack")]
    assert account.may_begin(CRM)
    assert account.may_begin(SLACK)


# Probes.


def test_a_probe_that_succeeds_closes_the_breaker_and_all_go_on(account):
    account.judged = (10, 9)
    account.note(*[503] * 9)
    account()
    account.note(200, probe=True)

    assert account() == [
        ("add", 1, 0, "crm"),
        ("close_breaker", "default", "crm"),
        ("ask", "default"),
        ("sweep",),
        ("bring_forward", "default", "crm"),
    ]
    pulse = account.hand.health._pulses[CRM]
    assert (pulse.attempts, pulse.failed) == (0, 0), "it begins to count anew"


def test_a_probe_that_fails_leaves_it_open(account):
    account.note(503, probe=True)

    assert account() == [("add", 1, 1, "crm"), ("judge", 120, "crm")]


def test_a_probe_that_made_no_call_leaves_it_to_the_next(account):
    account.note(0, probe=True)

    assert account() == [("give_up_probe", "default", "crm"), ("ask", "default"), ("sweep",)]


# Recovery.


def test_what_comes_forward_is_looked_for_at_once(account):
    account.note(503, 200)
    account.moved = 3

    assert account()[-2:] == [("bring_forward", "default", "crm"), ("expect", 0.0)]
    assert account() == []


def test_where_nothing_waits_there_is_nothing_to_look_for(account):
    account.note(503, 200)

    assert account()[-1] == ("bring_forward", "default", "crm")


def test_a_recovery_that_was_refused_is_made_later_and_so_are_those_behind_it(account):
    for place in (CRM, SLACK):
        account.note(503, 200, place=place)
    account.away = ["bring_forward"]
    account.is_refused()

    assert account() == [("bring_forward", "default", "crm"), ("bring_forward", "default", "slack")]
