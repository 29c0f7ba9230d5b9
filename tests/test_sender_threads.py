"""What a sender does when it looks for a job, with no thread and no clock but the test's."""

from time import monotonic

import pytest

from signal_dispatch import health, sender_threads
from signal_dispatch.exceptions import EndpointUnresolved, LeaseLost
from signal_dispatch.hand import Hand
from signal_dispatch.jobs import Job
from signal_dispatch.models import Attempt, Delivery, State
from signal_dispatch.sender_threads import SenderThreads
from signal_dispatch.sessions import SessionCache
from signal_dispatch.settling import Settlement


@pytest.fixture
def senders(monkeypatch):
    """Return senders with one job ready; ``senders.waits`` says for how long one waited."""
    hand = Hand(10, 10**6)
    made = SenderThreads(hand, lambda: None, most=1, idle_seconds=3600, keep_errors=False)
    made.waits = []
    monkeypatch.setattr(hand.ready, "wait", made.waits.append)
    monkeypatch.setattr(Job, "may_begin", property(lambda job: True))
    hand.queue.put(Job(Delivery(endpoint="crm"), "default", 0.0))
    return made


def gives_way(monkeypatch, *seconds):
    """Let the hand give these answers, one a question, and then 0."""
    answers = [*seconds, *[0.0] * 9]
    monkeypatch.setattr(Hand, "gives_way", property(lambda hand: answers.pop(0)))


def test_giving_way_that_ends_between_the_look_and_the_wait_is_noticed(senders, monkeypatch):
    gives_way(monkeypatch, 0.01)

    assert senders._next_job(wait=True) is not None
    assert senders.waits == [0.01]


def test_one_sender_is_enough_to_wait_for_the_end_of_giving_way(senders, monkeypatch):
    gives_way(monkeypatch, 0.01)
    senders._looks_at = sooner = monotonic() + 0.005
    senders._next_job(wait=True)

    assert senders.waits == [pytest.approx(3600, abs=60)]
    assert senders._looks_at == sooner, "it is the other one's to end"


def test_one_that_waits_for_a_rate_is_not_enough(senders, monkeypatch):
    gives_way(monkeypatch, 0.01)
    senders._looks_at = monotonic() + 20
    senders._next_job(wait=True)

    assert senders.waits == [0.01]


@pytest.mark.parametrize(("looks_after", "calls"), [(0.01, 0), (20, 1)])
def test_another_one_is_called_unless_somebody_looks_in_time(
    senders, monkeypatch, looks_after, calls
):
    called = []
    monkeypatch.setattr(senders._hand.ready, "notify", lambda: called.append(True))
    gives_way(monkeypatch, 0.02)
    senders._idle, senders._looks_at = 1, monotonic() + looks_after
    senders.alive = {None}
    senders.staff()

    assert len(called) == calls


@pytest.mark.parametrize(("looks_after", "calls"), [(0.5, 0), (20, 1)])
def test_so_it_is_for_what_a_rate_holds_back(senders, monkeypatch, looks_after, calls):
    called = []
    monkeypatch.setattr(senders._hand.ready, "notify", lambda: called.append(True))
    senders._hand.health.slow("crm", 0.7)
    senders._idle, senders._looks_at = 1, monotonic() + looks_after
    senders.alive = {None}
    senders.staff()

    assert len(called) == calls


def test_one_at_a_time_is_called(senders, monkeypatch):
    called = []
    monkeypatch.setattr(senders._hand.ready, "notify", lambda: called.append(True))
    senders._idle = 3
    for _ in range(3):
        senders._hand.queue.put(Job(Delivery(endpoint="crm"), "default", 0.0))
        senders.staff()
    assert called == [True]

    senders._next_job(wait=False)  # as whoever was called does, and calls the next one
    assert called == [True, True]


@pytest.mark.parametrize(("attempt", "told"), [(Attempt(outcome="delivered"), True), (None, False)])
def test_what_a_call_took_is_known_from_calls_alone(senders, monkeypatch, attempt, told):
    job = senders._next_job(wait=False)
    tried = Settlement(job.delivery, State.PENDING, attempt)
    monkeypatch.setattr(senders, "_try", lambda job, sessions: tried)
    senders._send(job, SessionCache())

    assert (senders._hand.took < 60) == told


def test_a_job_that_the_rate_does_not_admit_is_the_first_once_it_may_go(senders, monkeypatch):
    hand, (job,) = senders._hand, senders._hand.queue.ready()
    waits = [0.7, 0.0]
    monkeypatch.setattr(senders, "_start_sender", lambda: None)
    monkeypatch.setattr(sender_threads.rates, "seconds_to_wait", lambda alias: waits.pop(0))
    monkeypatch.setattr(health, "monotonic", lambda: now[0])
    now = [1000.0]
    hand.queue.put(Job(Delivery(endpoint="crm"), "default", 0.0))
    assert not senders._is_admitted(senders._next_job(wait=False))
    assert (hand.queue.in_flight, len(hand.queue), hand.settled) == (0, 2, [])
    assert senders._next_job(wait=False) is None
    assert hand.seconds_slowed == pytest.approx(0.7)
    now[0] += 0.7

    assert senders._next_job(wait=False) is job
    assert senders._is_admitted(job)


def test_one_that_does_not_watch_asks_for_no_rate(senders, monkeypatch):
    monkeypatch.setattr(sender_threads.rates, "seconds_to_wait", lambda alias: 7.0)
    senders._hand.health.watching = False

    assert senders._is_admitted(senders._next_job(wait=False))


@pytest.fixture
def asking(senders, monkeypatch, tenant):
    """Return senders of which one has taken a job of an endpoint that nobody asked for yet."""
    monkeypatch.undo()
    taken = []
    monkeypatch.setattr(senders, "staff", lambda: taken.append(senders._hand.queue.take()))
    senders._hand.queue.clear()
    for name in ("tenant:42", "tenant:42"):
        senders._hand.queue.put(Job(Delivery(endpoint=name), "default", monotonic()))
    senders.job, senders.taken = senders._hand.queue.take(), taken
    assert senders._hand.queue.take() is None, "the other one waits for the answer"
    return senders


def test_the_answer_of_a_resolver_lets_those_begin_that_waited_for_it(asking, tenant):
    tenant.come("42")

    assert asking._resolve(asking.job, "tenant:42").url.endswith("/42/")
    assert not asking.job.asks
    assert [job.delivery.endpoint for job in asking.taken] == ["tenant:42"]
    asking._resolve(asking.taken[0], "tenant:42")
    assert len(asking.taken) == 1, "nobody waits any more"


def test_that_there_is_none_is_an_answer_too(asking):
    with pytest.raises(EndpointUnresolved):
        asking._resolve(asking.job, "tenant:42")
    assert len(asking.taken) == 1


def test_no_call_begins_when_the_resolver_took_too_much_of_the_lease(asking, tenant):
    def slow():
        asking.job.since -= 50
        return {"URL": tenant.url}

    tenant.answers["42"] = slow
    with pytest.raises(LeaseLost):
        asking._resolve(asking.job, "tenant:42")
