"""Deliveries that a person gives up, and what goes on behind them."""

import pytest
from django.db import connection, transaction

from signal_dispatch import cancelling, settling
from signal_dispatch.cancelling import cancel, skip
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery, State
from signal_dispatch.settling import Settlement
from signal_dispatch.signals import delivery_finished
from tests.deliveries import delivery, seconds_until

pytestmark = pytest.mark.django_db(transaction=True)

WAITING = {"state": "waiting", "available_at": None}


def states(*made):
    return [Delivery.objects.get(pk=each.pk).state for each in made]


def of(*made):
    return Delivery.objects.filter(pk__in=[each.pk for each in made])


def test_what_waits_is_cancelled_with_the_reason():
    made = [
        delivery(),
        delivery(available_at=DatabaseNow(3600), attempts=3),
        delivery(lane="a", **WAITING),
    ]

    assert cancel(of(*made), "Not wanted.\x00") == 3

    for row in Delivery.objects.all():
        assert (row.state, row.available_at, row.held_by) == ("cancelled", None, "")
        assert -5 < seconds_until(row.finished_at) < 5
        assert row.reason == "Not wanted.\ufffd"


def test_what_is_finished_or_in_hand_stays():
    made = [
        delivery(state="delivered", available_at=None),
        delivery(state="failed", available_at=None),
        delivery(held_by="alive", available_at=DatabaseNow(60)),
    ]

    assert cancel(of(*made), "x") == 0
    assert states(*made) == ["delivered", "failed", "pending"]


def test_whoever_slept_past_its_lease_settles_it_no_more():
    made = delivery(held_by="asleep", epoch=1, available_at=DatabaseNow(-1))
    assert cancel(of(made), "x") == 1

    assert settling.settle([Settlement(made, State.DELIVERED)], "default") == []
    assert states(made) == ["cancelled"]


def test_what_waits_behind_it_goes_on():
    first = delivery(lane="a")
    second, third = delivery(lane="a", **WAITING), delivery(lane="a", **WAITING)

    cancel(of(first), "x")

    assert states(first, second, third) == ["cancelled", "pending", "waiting"]


def test_it_goes_on_after_the_commit_only():
    first, second = delivery(lane="a"), delivery(lane="a", **WAITING)
    with transaction.atomic():
        cancel(of(first), "x")
        assert states(second) == ["waiting"]
    assert states(second) == ["pending"]


def test_a_rollback_leaves_all_as_it_was():
    first, second = delivery(lane="a"), delivery(lane="a", **WAITING)
    with transaction.atomic():
        cancel(of(first), "x")
        transaction.set_rollback(True)
    assert states(first, second) == ["pending", "waiting"]


def test_many_are_cancelled_in_batches(monkeypatch):
    monkeypatch.setattr(cancelling, "BATCH", 2)
    for _ in range(5):
        delivery()

    assert cancel(Delivery.objects.all(), "x") == 5


def test_receivers_are_told():
    told = []

    def note(delivery, **kwargs):
        told.append((delivery.pk, delivery.state, delivery.reason))

    made = delivery()
    delivery_finished.connect(note)
    try:
        cancel(of(made), "x")
    finally:
        delivery_finished.disconnect(note)
    assert told == [(made.pk, "cancelled", "x")]


def test_skipping_cancels_the_head_where_others_wait():
    head = delivery(lane="a", available_at=DatabaseNow(3600))
    first, second = delivery(lane="a", **WAITING), delivery(lane="a", **WAITING)
    alone = delivery(lane="b")
    loose = delivery()

    assert skip(of(second, alone, loose), "Skipped.") == 1
    assert states(head, first, second, alone, loose) == [
        *("cancelled", "pending", "waiting", "pending", "pending")
    ]


def test_a_head_that_is_in_hand_is_not_skipped():
    head = delivery(lane="a", held_by="alive", available_at=DatabaseNow(60))
    waiting = delivery(lane="a", **WAITING)

    assert skip(of(waiting), "x") == 0
    assert states(head, waiting) == ["pending", "waiting"]


def test_the_head_itself_may_be_chosen():
    head, waiting = delivery(lane="a"), delivery(lane="a", **WAITING)

    assert skip(of(head), "x") == 1
    assert states(head, waiting) == ["cancelled", "pending"]


def test_lanes_are_skipped_in_batches(monkeypatch):
    monkeypatch.setattr(cancelling, "BATCH", 2)
    for lane in "abc":
        delivery(lane=lane, object_pk=lane)
        delivery(lane=lane, **WAITING)

    assert skip(Delivery.objects.all(), "x") == 3
    assert connection.in_atomic_block is False
