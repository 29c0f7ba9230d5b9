"""What a sender does when it looks for a job, with no thread and no clock but the test's."""

import pytest

from signal_dispatch.hand import Hand
from signal_dispatch.jobs import Job
from signal_dispatch.models import Delivery
from signal_dispatch.sender_threads import SenderThreads


@pytest.fixture
def senders(monkeypatch):
    """Return senders with one job ready; ``senders.waits`` says for how long one waited."""
    hand = Hand(10, 10**6)
    made = SenderThreads(hand, most=1, idle_seconds=3600, keep_errors=False)
    made.waits = []
    monkeypatch.setattr(hand.ready, "wait", made.waits.append)
    monkeypatch.setattr("signal_dispatch.sender_threads._may_begin", lambda job: True)
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
    senders._watching = True
    senders._next_job(wait=True)

    assert senders.waits == [pytest.approx(3600, abs=60)]
    assert senders._watching, "it is the other one's to end"
