"""What the bookkeeper takes into the hand, what it leaves, and when it looks again."""

from types import SimpleNamespace

import pytest
from django.db import OperationalError

from signal_dispatch import claims, intake, lanes
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.hand import Hand, Settled
from signal_dispatch.intake import RETURN_SECONDS, Intake
from signal_dispatch.jobs import Job
from signal_dispatch.lanes import Released
from signal_dispatch.models import Delivery, State
from signal_dispatch.settling import Settlement
from tests.deliveries import delivery, seconds_until
from tests.once import ONCE

LANE = ("default", "a")


class Taking:
    """An intake by a clock that the test moves, and the jobs that the senders got."""

    def __init__(self, monkeypatch):
        self.now, self.has_room = 1000.0, True
        self.got, self.asked, self.expected = [], [], []
        monkeypatch.setattr(intake, "monotonic", lambda: self.now)
        sweeper = SimpleNamespace(
            ask=lambda: self.asked.append(True),
            expect=self.expected.append,
        )
        self.hand = Hand(100, 10**6)
        self.intake = Intake(self.hand, sweeper, self.submit, batch=2)

    def submit(self, job):
        if self.has_room:
            self.got.append(job)
        return self.has_room

    def read_back(self, *made):
        self.hand.to_read |= {("default", each.pk): 900.0 + each.pk for each in made}
        self.intake.read_back()
        return [job.delivery for job in self.got]

    def look_again(self, *looks):
        self.hand.to_look |= set(looks)
        self.intake.look_again()


@pytest.fixture
def taking(monkeypatch):
    return Taking(monkeypatch)


def leased(**values):
    """Record a delivery as a save does that leases it to this process."""
    held = {"held_by": claims.holder(), "epoch": 1, "available_at": DatabaseNow(60)}
    return delivery(**held | values)


# Read back.


@pytest.mark.django_db
def test_what_was_committed_goes_to_the_senders_with_the_time_of_its_lease(taking):
    made = leased()

    assert taking.read_back(made) == [made]
    (job,) = taking.got
    assert (job.using, job.since, job.probe) == ("default", 900.0 + made.pk, False)
    assert taking.hand.to_read == {}


@pytest.mark.django_db
@pytest.mark.parametrize("values", [{"epoch": 2}, {"held_by": "another"}, {"held_by": ""}])
def test_what_is_not_this_leases_any_more_is_forgotten(taking, values):
    assert taking.read_back(leased(**values)) == []
    assert taking.hand.to_read == {}


@pytest.mark.django_db
def test_what_was_rolled_back_is_forgotten(taking):
    assert taking.read_back(Delivery(pk=4711)) == []
    assert taking.hand.to_read == {}


@pytest.mark.django_db
def test_what_is_in_hand_is_not_taken_again_for_a_number_that_was_given_back(taking):
    """A savepoint took a row back, and the next one by its number was released from its lane."""
    made = leased()
    taking.hand.queue.put(Job(made, "default", 950.0))
    taken = taking.hand.queue.take()

    assert taking.read_back(made) == []
    assert taking.hand.to_read == {}
    taking.hand.queue.done(taken)
    taking.hand.settled.append(Settled(taken, Settlement(made, State.DELIVERED)))
    assert taking.read_back(made) == []


@pytest.mark.django_db
def test_so_many_are_read_at_once_and_the_others_after_them(taking):
    made = [leased() for _ in range(3)]

    assert taking.read_back(*made) == made[:2]
    assert taking.read_back() == made


@pytest.mark.django_db
def test_what_the_senders_have_no_room_for_is_anybodys_and_looked_for_soon(taking):
    taking.has_room = False
    taking.read_back(leased(attempts=2))
    row = Delivery.objects.get()

    assert (row.held_by, row.attempts, row.state) == ("", 2, "pending")
    assert seconds_until(row.available_at) <= 1
    assert taking.expected == [RETURN_SECONDS]
    assert taking.hand.to_read == {}


def meanwhile(monkeypatch, change):
    """Let the database answer with row 1, after a change made by another thread."""

    def read_back(using, holder, ids):
        change()
        return [Delivery(pk=1, endpoint="crm")]

    monkeypatch.setattr(claims, "read_back", read_back)


@ONCE
def test_a_row_that_has_a_number_anew_is_left_to_its_own_hint(taking, monkeypatch):
    key = "default", 1
    meanwhile(monkeypatch, lambda: taking.hand.to_read.update({key: 950.0}))

    assert taking.read_back(Delivery(pk=1)) == []
    assert taking.hand.to_read == {key: 950.0}


@ONCE
def test_a_number_that_is_another_saves_by_now_is_not_sent(taking, monkeypatch):
    meanwhile(monkeypatch, taking.hand.to_read.clear)

    assert taking.read_back(Delivery(pk=1)) == []


@ONCE
def test_what_could_not_be_read_is_read_later(taking, monkeypatch):
    def refuse():
        raise OperationalError("gone away")

    meanwhile(monkeypatch, refuse)
    with pytest.raises(OperationalError):
        taking.read_back(Delivery(pk=1))

    assert taking.hand.to_read == {("default", 1): 901.0}


@pytest.mark.django_db
def test_what_was_taken_before_the_database_went_away_is_not_taken_twice(taking, monkeypatch):
    made = [leased(), leased()]

    def refuse(*arguments):
        raise OperationalError("gone away")

    def take_one(job):
        taking.got.append(job)
        return len(taking.got) == 1

    monkeypatch.setattr(claims, "hand_back", refuse)
    taking.intake._submit = take_one
    with pytest.raises(OperationalError):
        taking.read_back(*made)

    assert set(taking.hand.to_read) == {("default", made[1].pk)}


# Lanes that may have become free.


@pytest.mark.django_db
def test_the_next_of_a_free_lane_is_this_processs(taking):
    made = delivery(state="waiting", lane="a", available_at=None)
    taking.look_again(LANE)
    (job,) = taking.got

    assert (job.delivery, job.since, job.using) == (made, taking.now, "default")
    assert Delivery.objects.get().held_by == claims.holder()
    assert (taking.hand.to_look, taking.hand.looking) == (set(), 0)


@pytest.mark.django_db
def test_the_next_of_a_lane_whose_head_is_not_finished_waits(taking):
    delivery(lane="a")
    delivery(state="waiting", lane="a", available_at=None)
    taking.look_again(LANE)

    assert taking.got == []


@pytest.mark.django_db
def test_one_with_a_delay_is_left_to_the_sweep(taking):
    later = DatabaseNow(60)
    delivery(state="waiting", lane="a", available_at=None, not_before=later)
    taking.look_again(LANE)

    assert taking.got == []
    assert taking.asked == [True]


def answering(monkeypatch, answer):
    """Let ``answer(using, lanes)`` say what is released."""
    monkeypatch.setattr(lanes, "release", lambda using, freed, lease: answer(using, freed))


@ONCE
def test_a_lane_that_somebody_has_locked_is_looked_at_again_in_a_while(taking, monkeypatch):
    looked = []

    def blocked_at_first(using, freed):
        looked.append((using, *sorted(freed)))
        return Released(blocked=frozenset(freed if len(looked) < 3 else ()))

    answering(monkeypatch, blocked_at_first)
    assert taking.intake.next_look() is None
    taking.look_again(LANE)
    assert taking.intake.next_look() == 1000.0 + RETURN_SECONDS
    assert not taking.hand.is_empty, "whoever ends now leaves the lane to the repair"
    taking.now += RETURN_SECONDS / 2
    taking.look_again(("default", "b"))
    assert looked == [("default", "a"), ("default", "b")], "not yet"
    assert taking.intake.next_look() == 1000.0 + RETURN_SECONDS, "others don't put it off"
    taking.now += RETURN_SECONDS / 2
    taking.look_again()

    assert looked[2:] == [("default", "a", "b")]
    assert taking.intake.next_look() is None


@ONCE
def test_while_it_looks_that_counts_and_what_is_asked_meanwhile_is_another_look(
    taking, monkeypatch
):
    seen = []

    def answer(using, freed):
        seen.append((taking.hand.looking, taking.hand.is_empty))
        taking.hand.to_look.add(LANE)
        return Released()

    answering(monkeypatch, answer)
    taking.look_again(LANE)

    assert seen == [(1, False)]
    assert (taking.hand.to_look, taking.hand.looking) == ({LANE}, 0)


@ONCE
def test_what_could_not_be_looked_at_is_looked_at_later(taking, monkeypatch):
    looked = []

    def refuse_one(using, freed):
        if using == "other":
            raise OperationalError("gone away")
        looked.append((using, *freed))
        return Released()

    answering(monkeypatch, refuse_one)
    other = "other", "b"
    with pytest.raises(OperationalError):
        taking.look_again(LANE, other)

    assert taking.hand.to_look == {LANE, other} - set(looked)
    assert taking.hand.looking == 0
