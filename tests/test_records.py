"""What the bookkeeper records, which lanes it frees, and what it keeps where it can't."""

from types import SimpleNamespace

import pytest
from django.db import OperationalError

from signal_dispatch import records
from signal_dispatch.hand import Hand, Settled
from signal_dispatch.jobs import Job
from signal_dispatch.models import Delivery, State
from signal_dispatch.records import Recorder
from signal_dispatch.settling import Settlement
from tests.once import ONCE

pytestmark = ONCE


class Record:
    """A recorder whose outboxes accept all, but what is in ``refused`` and ``lost``."""

    def __init__(self, monkeypatch):
        self.written, self.told, self.expected, self.asked = [], [], [], []
        self.away, self.lost = set(), []
        monkeypatch.setattr(records, "settle_all", self.settle_all)
        monkeypatch.setattr(records, "tell", lambda accepted, using: self.told.extend(accepted))
        sweeper = SimpleNamespace(expect=self.expected.append, ask=lambda: self.asked.append(True))
        self.hand = Hand(100, 10**6)
        self.recorder = Recorder(self.hand, sweeper)

    def settle_all(self, settlements, using):
        if using in self.away:
            raise OperationalError("gone away")
        self.written += settlements
        self.recording = (self.hand.unrecorded, self.hand.is_empty)
        return [each for each in settlements if each not in self.lost]

    def settled(self, lane="", using="default", state=State.DELIVERED, **values):
        """Put a settled job into the hand; return its settlement."""
        made = Delivery(pk=len(self.hand.settled) + 1, endpoint="crm", lane=lane)
        settlement = Settlement(made, state, **values)
        self.hand.settled.append(Settled(Job(made, using, 0.0), settlement))
        return settlement

    def __call__(self):
        self.recorder.record()
        return self.hand.to_look


@pytest.fixture
def record(monkeypatch):
    return Record(monkeypatch)


def test_what_was_settled_is_written_told_and_frees_its_lane(record):
    made = [record.settled("a"), record.settled()]

    assert record() == {("default", "a")}
    assert record.written == record.told == made
    assert record.hand.is_empty is False, "the lane is to be looked at"
    assert record.hand.unrecorded == 0


def test_answers_count_as_unrecorded_while_they_are_written(record):
    record.settled()
    record.settled()
    record()

    assert record.recording == (2, False)


def test_a_retry_keeps_its_lane_and_is_looked_for_when_it_is_due(record):
    record.settled("a", state=State.PENDING, delay=5.0)

    assert record() == set()
    assert record.expected == [pytest.approx(5.01)]


def test_one_that_was_refused_may_be_finished_and_frees_its_lane(record):
    record.lost = [record.settled("a", state=State.PENDING, delay=5.0)]

    assert record() == {("default", "a")}
    assert record.told == record.expected == []


def test_what_is_recorded_already_is_not_written_again_but_frees_its_lane(record):
    record.settled("a", recorded=True)

    assert record() == {("default", "a")}
    assert record.written == record.told == record.asked == []


def test_one_that_leaves_another_in_its_place_asks_for_a_look(record):
    record.settled("a", recorded=True, successor=Delivery())
    record()

    assert record.asked == [True]


def test_what_the_database_refused_is_kept_before_what_came_since(record):
    first = record.settled("a")
    record.away = {"default"}
    with pytest.raises(OperationalError):
        record()
    assert record.hand.unrecorded == 1
    assert record.hand.to_look == set()
    second, record.away = record.settled(), set()

    assert record() == {("default", "a")}
    assert record.written == [first, second]


def test_one_outbox_that_refuses_keeps_no_other_waiting(record):
    for using in ("default", "other", "third"):
        record.settled(using=using)
    record.away = {"default", "other"}
    with pytest.raises(OperationalError):
        record()

    assert len(record.written) == 1
    assert {s.job.using for s in record.hand.settled} == {"default", "other"}


def test_where_one_outbox_refuses_each_answer_is_written_once(record):
    made = [record.settled("a"), record.settled("b", using="other")]
    record.away = {"other"}
    with pytest.raises(OperationalError):
        record()
    record.away = set()
    record()

    assert sorted(record.written, key=made.index) == made
    assert record.hand.to_look == {("default", "a"), ("other", "b")}
