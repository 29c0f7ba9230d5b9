"""One after the other: who is next in a lane, and that nobody is forgotten or overtakes."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signal_dispatch import lanes
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease
from tests.deliveries import delivery

pytestmark = pytest.mark.django_db

MINE = Lease("me", 60)


def waiting(lane, **values):
    return delivery(lane=lane, state="waiting", available_at=None, **values)


def state_of(made):
    return Delivery.objects.get(pk=made.pk).state


def test_a_lane_is_environment_endpoint_dispatch_and_object():
    parts = ["", "crm", "shop.Told", "shop.order", 1]
    lane = lanes.lane_of(*parts)
    others = [
        lanes.lane_of(*[*parts[:position], "x", *parts[position + 1 :]]) for position in range(5)
    ]

    assert lanes.lane_of(*parts) == lane
    assert len({lane, *others}) == 6
    assert len(lane) == 32
    assert lanes.lane_of("", "crm", "shop.Told", "shop.order", "1") != lane, "another kind of key"


def test_the_first_that_waits_belongs_to_the_releaser():
    first, second = waiting("a"), waiting("a")

    assert lanes.release("default", ["a"], MINE) == [first]
    row = Delivery.objects.get(pk=first.pk)
    assert (row.state, row.held_by, row.epoch) == ("pending", "me", 1)
    assert 50 < (row.available_at - timezone.now()).total_seconds() < 61
    assert state_of(second) == "waiting"


def test_without_a_lease_it_is_due_for_everybody():
    first = waiting("a")

    assert lanes.release("default", ["a"], None) == [first]
    row = Delivery.objects.get(pk=first.pk)
    assert (row.held_by, row.epoch) == ("", 0)
    assert (row.available_at - timezone.now()).total_seconds() < 5


@pytest.mark.parametrize("lease", [None, MINE])
def test_nobody_overtakes_a_head_that_is_pending(lease):
    delivery(lane="a")
    second = waiting("a")

    assert lanes.release("default", ["a"], lease) == []
    assert state_of(second) == "waiting"


def test_a_busy_lane_leaves_the_idle_ones_alone():
    delivery(lane="busy")
    waiting("busy")
    free, also = waiting("free"), waiting("also")
    waiting("not asked for")
    with CaptureQueriesContext(connection) as queries:
        assert lanes.release("default", ["busy", "free", "also"], MINE) == [free, also]

    assert len(queries) == 3
    assert Delivery.objects.filter(state="waiting").count() == 2


def test_lanes_where_nobody_waits_cost_one_query():
    delivery(lane="a", state="delivered")
    with CaptureQueriesContext(connection) as queries:
        assert lanes.release("default", ["a", "b"], MINE) == []

    assert len(queries) == 1


def test_two_that_release_at_once_move_one_row_once(monkeypatch):
    # Both have read who is first; the other was faster.
    first = waiting("a")
    promote = lanes._promote

    def late(using, ids, names, lease):
        assert promote(using, ids, names, Lease("you", 60)) == 1
        return promote(using, ids, names, lease)

    monkeypatch.setattr(lanes, "_promote", late)

    assert lanes.release("default", ["a"], MINE) == []
    row = Delivery.objects.get(pk=first.pk)
    assert (row.held_by, row.epoch) == ("you", 1)


def test_a_row_that_was_sent_meanwhile_is_not_moved_again(monkeypatch):
    first, second = waiting("a"), waiting("a")
    promote = lanes._promote

    def late(*arguments):
        Delivery.objects.filter(pk=first.pk).update(state="delivered")
        return promote(*arguments)

    monkeypatch.setattr(lanes, "_promote", late)

    assert lanes.release("default", ["a"], MINE) == []
    assert (state_of(first), state_of(second)) == ("delivered", "waiting")


def test_what_another_process_moved_is_not_taken(monkeypatch):
    theirs, mine = waiting("a"), waiting("b")
    promote = lanes._promote

    def late(*arguments):
        promote("default", [theirs.pk], ["a"], Lease("you", 60))
        return promote(*arguments)

    monkeypatch.setattr(lanes, "_promote", late)

    assert lanes.release("default", ["a", "b"], MINE) == [mine]


def test_lanes_that_wait_behind_nothing_are_found():
    waiting("lost")
    waiting("lost")
    delivery(lane="lost", state="delivered")
    delivery(lane="busy")
    waiting("busy")
    delivery(lane="")

    assert lanes.idle_lanes(Delivery.objects.all(), 10) == ["lost"]
    waiting("also")
    foreign = Delivery.objects.filter(environment="production")
    assert lanes.idle_lanes(foreign, 10) == []
    assert len(lanes.idle_lanes(Delivery.objects.all(), 1)) == 1
