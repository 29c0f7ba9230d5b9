"""What a process gives back to the table, and what it keeps where it can't."""

import pytest
from django.db import OperationalError

from signal_dispatch import claims
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.hand import Hand
from signal_dispatch.jobs import Job
from signal_dispatch.models import Delivery
from signal_dispatch.returning import return_jobs
from tests.deliveries import delivery, seconds_until
from tests.once import ONCE


@pytest.fixture
def hand():
    return Hand(queue_size=2, queue_bytes=10**6)


def mine(**values):
    held = {"held_by": claims.holder(), "epoch": 3, "available_at": DatabaseNow(60)}
    return delivery(**held | values)


def job(made=None, using="default", *, probe=False):
    return Job(made or Delivery(pk=1, endpoint="crm", epoch=1), using, 0.0, probe)


@pytest.mark.django_db
def test_what_is_given_back_is_due_at_once_for_anybody_and_loses_no_attempt(hand):
    made = [mine(attempts=2, retried=True), mine()]
    return_jobs(hand, [job(each) for each in made])

    for row in Delivery.objects.all():
        assert (row.state, row.held_by) == ("pending", "")
        assert seconds_until(row.available_at) <= 1
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {0, 2}
    assert len(hand.queue) == 0


@pytest.mark.django_db
def test_what_was_claimed_anew_since_is_left_to_that_claim(hand):
    made = mine()
    Delivery.objects.update(epoch=4)
    return_jobs(hand, [job(made)])

    assert Delivery.objects.get().held_by == claims.holder()


@ONCE
def test_what_the_database_refused_stays_in_hand_as_it_was(hand, monkeypatch):
    def refuse(using, holder, held):
        raise OperationalError("gone away")

    monkeypatch.setattr(claims, "hand_back", refuse)
    jobs = [job(probe=True), job()]
    with pytest.raises(OperationalError):
        return_jobs(hand, jobs)

    assert list(hand.queue.ready()) == jobs
    assert hand.queue.take().probe


@ONCE
def test_of_two_outboxes_each_job_is_given_back_or_kept(hand, monkeypatch):
    returned = []

    def refuse_one(using, holder, held):
        if using == "other":
            raise OperationalError("gone away")
        returned.extend((using, claim) for claim in held)

    monkeypatch.setattr(claims, "hand_back", refuse_one)
    jobs = [job(), job(using="other")]
    with pytest.raises(OperationalError):
        return_jobs(hand, jobs)
    kept = list(hand.queue.ready())

    assert jobs[1] in kept
    assert (jobs[0] in kept) is not bool(returned)
    assert all(using == "default" for using, _claim in returned)


@ONCE
def test_what_was_refused_has_its_lease_kept_though_saves_filled_the_hand_since(hand, monkeypatch):
    def fill_and_refuse(using, holder, held):
        while hand.queue.put(job()):
            pass
        raise OperationalError("gone away")

    monkeypatch.setattr(claims, "hand_back", fill_and_refuse)
    refused = job(probe=True)
    with pytest.raises(OperationalError):
        return_jobs(hand, [refused])

    assert refused in hand.held()
