"""What a process knows of its endpoints: when it may call, when it tells, what it learns."""

from math import inf

import pytest

from signal_dispatch import health
from signal_dispatch.breakers import Breaker
from signal_dispatch.health import CALM_SECONDS, COUNT_SECONDS, RECOVERY_SECONDS, Health
from signal_dispatch.jobs import Job, Place
from signal_dispatch.models import Attempt, Delivery
from tests.once import ONCE

pytestmark = ONCE
CRM, SLACK = Place("default", "crm"), Place("default", "slack")
OTHER = Place("other", "crm")


class Known:
    """What is known, by a clock that the test moves."""

    def __init__(self, monkeypatch, breaker=None, **options):
        self.now = 1000.0
        monkeypatch.setattr(health, "monotonic", lambda: self.now)
        self.breakers = {"crm": breaker or Breaker(), "slack": Breaker(), "calm": None}
        self.health = Health(self.breakers.get, **options)

    def note(self, *statuses, place=CRM, probe=False):
        for status in statuses:
            outcome = "delivered" if status and status < 300 else "retry"
            attempt = Attempt(number=1, outcome=outcome, status_code=status or None, duration_ms=5)
            self.health.note(self.job(place, probe=probe), attempt)

    def job(self, place=CRM, *, probe=False):
        return Job(Delivery(endpoint=place.endpoint), place.using, 0.0, probe)

    def tell(self, place=CRM):
        """Take the news that is due, as the bookkeeper does, and return what was counted."""
        news = self.health.take_news(self.now).get(place)
        if news is None:
            return None
        self.health.counted(place, news.counts)
        return news.counts["breaker_attempts"], news.counts["breaker_failed"]


@pytest.fixture
def known(monkeypatch):
    return Known(monkeypatch)


# Which may be called.


def test_what_is_not_known_may_be_called(known):
    assert known.health.may_begin(CRM)
    assert known.health.barred("default") == {}


def test_a_barred_endpoint_takes_a_probe_only_and_only_from_its_own_outbox(known):
    known.health.bar("default", {"crm": 30.0})

    assert not known.health.may_begin(CRM)
    assert known.health.may_begin(CRM, probe=True)
    assert known.health.may_begin(OTHER)
    assert known.health.may_begin(SLACK)
    assert known.health.barred("default") == {"crm": 1030.0}
    assert known.health.turns_away(known.job())
    assert not known.health.turns_away(known.job(probe=True))
    known.health.bar("other", {})
    assert not known.health.may_begin(CRM)
    known.health.bar("default", {})
    assert known.health.may_begin(CRM)


def test_a_paused_endpoint_turns_away_a_probe_too(known):
    known.health.bar("default", {"crm": inf})

    assert known.health.turns_away(known.job(probe=True))


def test_a_rate_that_is_used_up_slows_its_endpoint_until_there_is_room(known):
    known.health.slow("crm", 0.5)
    assert not known.health.may_begin(CRM)
    assert not known.health.may_begin(OTHER), "a rate is the endpoint's, not the outbox's"
    assert known.health.may_begin(SLACK)
    assert known.health.seconds_slowed([CRM, SLACK]) == 0.5
    assert known.health.seconds_slowed([SLACK]) == 0
    known.now += 0.5

    assert known.health.may_begin(CRM)
    assert known.health.seconds_slowed([CRM]) == 0


def test_whoever_is_not_patient_bars_what_a_rate_holds_back_for_longer(monkeypatch):
    known = Known(monkeypatch, rate_patience=5.0)
    known.health.bar("default", {"slack": 30.0})
    known.health.slow("crm", 60)

    assert known.health.barred("default") == {"slack": 1030.0, "crm": inf}
    assert known.health.barred("other") == {"crm": inf}
    assert known.health.turns_away(known.job(probe=True))
    assert known.health.slowed() == {"crm"}
    known.now += 55
    assert known.health.barred("other") == {}
    assert not known.health.turns_away(known.job())
    assert known.health.slowed() == {"crm"}
    known.now += 5
    assert known.health.slowed() == set()


# When a few more failures could open the breaker.


def test_after_a_failure_nothing_begins_before_the_outbox_was_asked(known):
    known.note(503)
    assert not known.health.may_begin(CRM)
    assert known.health.next_news() == known.now
    assert known.tell() == (1, 1)
    assert not known.health.may_begin(CRM)
    known.health.learn(CRM, 1, 1)

    assert known.health.may_begin(CRM)
    assert known.health.next_news() == inf


def test_what_fails_while_the_outbox_is_asked_is_asked_about_too(known):
    known.note(503)
    known.tell()
    known.note(503)
    known.health.learn(CRM, 1, 1)

    assert not known.health.may_begin(CRM)
    assert known.tell() == (1, 1)


def test_a_success_meanwhile_needs_no_question(known):
    known.note(503)
    known.tell()
    known.note(200)
    known.health.learn(CRM, 1, 1)

    assert known.health.may_begin(CRM)


def test_a_failure_among_many_successes_hurries_nobody(known):
    known.note(*[200] * 20, 503)

    assert known.health.may_begin(CRM)
    assert known.health.next_news() == known.now + COUNT_SECONDS


def test_what_was_told_counts_as_known(known):
    known.note(*[200] * 20)
    known.now += COUNT_SECONDS
    assert known.tell() == (20, 0)
    known.note(503)

    assert known.health.may_begin(CRM)


def test_without_a_breaker_no_failure_keeps_it_waiting(known):
    calm = Place("default", "calm")
    known.note(503, place=calm)

    assert known.health.may_begin(calm)


def test_under_test_nothing_is_noted(monkeypatch):
    known = Known(monkeypatch, watching=False)
    known.note(*[503] * 20)

    assert known.health.may_begin(CRM)
    assert known.health.next_news() == inf


# Telling the outbox.


def test_what_is_well_is_told_in_heaps(known):
    known.note(200)
    known.now += COUNT_SECONDS - 0.1
    known.note(200, 200)
    assert known.tell() is None
    known.now += 0.1

    assert known.tell() == (3, 0)
    assert known.tell() is None


def test_all_is_told_at_the_end(known):
    known.note(200)

    assert set(known.health.take_news(inf)) == {CRM}


def test_what_could_not_be_told_is_kept(known):
    known.note(503)
    news = known.health.take_news(known.now)[CRM]
    known.note(503, 503)
    known.health.give_back(CRM, news)

    assert known.tell() == (3, 3)


def test_what_was_counted_but_not_asked_about_is_not_forgotten(known):
    known.note(503)
    news = known.health.take_news(known.now)[CRM]
    news.counts.clear()
    news.to_judge = True
    known.health.give_back(CRM, news)

    assert known.health.next_news() <= known.now
    assert known.health.take_news(known.now)[CRM].to_judge


def test_what_made_no_attempt_is_no_news(known):
    known.health.note(known.job(), None)

    assert known.health.next_news() == inf


@pytest.mark.parametrize(("status", "succeeded"), [(200, True), (404, True), (503, False)])
def test_the_end_of_a_probe_is_told_at_once(known, status, succeeded):
    known.note(status, probe=True)

    assert known.health.next_news() <= known.now
    news = known.health.take_news(known.now)[CRM]
    assert (news.has_probed, news.probe_succeeded) == (True, succeeded)


def test_a_probe_that_made_no_attempt_learned_nothing(known):
    known.health.note(known.job(probe=True), None)

    news = known.health.take_news(known.now)[CRM]
    assert (news.has_probed, news.probe_succeeded) == (True, None)
    known.health.give_back(CRM, news)
    assert known.health.take_news(known.now)[CRM].has_probed


# Recovery.


def test_the_first_success_after_a_failure_lets_retries_come_forward(known):
    known.note(200)
    assert known.health.take_recovered(known.now) == []
    known.note(503, 200)
    assert known.health.next_news() <= known.now
    assert known.health.take_recovered(known.now) == [CRM]
    known.note(200)

    assert known.health.take_recovered(known.now) == []


def test_a_rejection_is_no_success(known):
    known.note(503, 404)

    assert known.health.take_recovered(known.now) == []
    known.note(200)
    assert known.health.take_recovered(known.now) == [CRM]


def test_one_that_fails_now_and_then_lets_them_come_forward_now_and_then(known):
    known.note(503, 200)
    known.health.take_recovered(known.now)
    known.now += 1
    known.note(503, 200)
    assert known.health.take_recovered(known.now) == []
    known.now += RECOVERY_SECONDS - 1

    assert known.health.take_recovered(known.now) == [CRM]


def test_a_breaker_that_closes_lets_them_come_forward_at_once(known):
    known.note(503, 200)
    known.health.take_recovered(known.now)
    known.now += 1
    known.health.recover(CRM)

    assert known.health.take_recovered(known.now) == [CRM]


# Incidents.


def failing(known, place=CRM):
    known.health.begin_failing(place)
    known.note(503)


def test_an_incident_may_be_over_a_while_after_the_first_success(known):
    failing(known)
    known.note(200)
    known.now += CALM_SECONDS / 2
    known.note(200)
    known.tell()
    known.health.take_recovered(known.now)
    assert known.health.next_news() == known.now + CALM_SECONDS / 2
    assert known.health.take_calm(known.now) == []
    known.now += CALM_SECONDS / 2

    assert known.health.take_calm(known.now) == [CRM]
    assert known.health.take_calm(inf) == [], "until the next success"
    known.note(200)
    assert known.health.take_calm(inf) == [CRM], "at the end nobody looks later"
    known.health.end_failing(CRM)
    assert not known.health.is_failing(CRM)


def test_an_incident_goes_on_where_the_last_call_failed(known):
    failing(known)
    known.note(200, 503)

    assert known.health.take_calm(inf) == []
    known.note(200)
    assert known.health.take_calm(inf) == [CRM]


def test_without_an_incident_a_success_asks_for_no_look(known):
    known.note(503, 200)

    assert known.health.take_calm(inf) == []


def test_the_outbox_says_which_incidents_go_on(known):
    known.health.learn_failing("default", {"crm"})
    known.health.learn_failing("other", {"crm"})
    known.note(200)
    known.health.learn_failing("default", {"crm", "slack"})
    assert known.health.take_calm(inf) == [CRM], "the success is not forgotten"
    known.health.learn_failing("default", set())

    assert [known.health.is_failing(place) for place in (CRM, SLACK, OTHER)] == [False, False, True]
