"""One after the other: who is next in a lane, and that nobody is forgotten or overtakes."""

import threading

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signal_dispatch import lanes
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease
from tests.deliveries import delivery, statements
from tests.settings import DATABASE

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

    assert lanes.release("default", ["a"], MINE).taken == [first]
    row = Delivery.objects.get(pk=first.pk)
    assert (row.state, row.held_by, row.epoch) == ("pending", "me", 1)
    assert 50 < (row.available_at - timezone.now()).total_seconds() < 61
    assert state_of(second) == "waiting"


def test_without_a_lease_it_is_due_for_everybody():
    first = waiting("a")

    assert lanes.release("default", ["a"], None).taken == [first]
    row = Delivery.objects.get(pk=first.pk)
    assert (row.held_by, row.epoch) == ("", 0)
    assert (row.available_at - timezone.now()).total_seconds() < 5


@pytest.mark.parametrize("lease", [None, MINE])
def test_nobody_overtakes_a_head_that_is_pending(lease):
    delivery(lane="a")
    second = waiting("a")

    assert lanes.release("default", ["a"], lease).taken == []
    assert state_of(second) == "waiting"


def test_a_busy_lane_leaves_the_idle_ones_alone():
    delivery(lane="busy")
    waiting("busy")
    free, also = waiting("free"), waiting("also")
    waiting("not asked for")
    with CaptureQueriesContext(connection) as queries:
        assert lanes.release("default", ["busy", "free", "also"], MINE).taken == [free, also]

    assert len(statements(queries, "SELECT", "UPDATE")) == 4, "one is for the busy one alone"
    assert Delivery.objects.filter(state="waiting").count() == 2


def test_lanes_where_nobody_waits_cost_one_query():
    delivery(lane="a", state="delivered")
    with CaptureQueriesContext(connection) as queries:
        assert lanes.release("default", ["a", "b"], MINE) == lanes.Released()

    assert len(queries) == 1


def test_no_lanes_cost_no_query(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert lanes.release("default", [], MINE) == lanes.Released()


def let_meanwhile(monkeypatch, happen):
    """Let something happen when it is read who is first, and before their rows are locked."""
    first_of_each = lanes.first_of_each

    def late(*arguments):
        monkeypatch.setattr(lanes, "first_of_each", first_of_each)
        found = first_of_each(*arguments)
        happen()
        return found

    monkeypatch.setattr(lanes, "first_of_each", late)


def test_two_that_release_at_once_move_one_row_once(monkeypatch):
    first = waiting("a")
    let_meanwhile(monkeypatch, lambda: lanes.release("default", ["a"], Lease("you", 60)))

    assert lanes.release("default", ["a"], MINE).taken == []
    row = Delivery.objects.get(pk=first.pk)
    assert (row.held_by, row.epoch) == ("you", 1)


def test_a_row_that_was_sent_meanwhile_is_not_moved_again(monkeypatch):
    first, second = waiting("a"), waiting("a")
    sent = Delivery.objects.filter(pk=first.pk)
    let_meanwhile(monkeypatch, lambda: sent.update(state="delivered"))

    assert lanes.release("default", ["a"], MINE).taken == []
    assert (state_of(first), state_of(second)) == ("delivered", "waiting")


def test_what_another_process_moved_is_not_taken(monkeypatch):
    waiting("a")
    mine = waiting("b")
    let_meanwhile(monkeypatch, lambda: lanes.release("default", ["a"], Lease("you", 60)))

    assert lanes.release("default", ["a", "b"], MINE).taken == [mine]


def test_who_is_released_is_known_as_it_stands():
    waiting("a")
    (taken,) = lanes.release("default", ["a"], MINE).taken

    row = Delivery.objects.get()
    assert (taken.state, taken.held_by, taken.epoch) == (row.state, row.held_by, row.epoch)


def test_a_delay_that_is_not_over_holds_up_the_released():
    made = waiting("a", not_before=DatabaseNow(30))
    waiting("a")
    released = lanes.release("default", ["a"], MINE)

    assert (released.taken, released.scheduled) == ([], True)
    row = Delivery.objects.get(pk=made.pk)
    assert (row.state, row.held_by, row.epoch) == ("pending", "", 0)
    assert row.available_at == row.not_before
    assert lanes.release("default", ["a"], MINE).taken == [], "it keeps its lane busy"


def test_a_delay_that_is_over_holds_up_nobody():
    made = waiting("a", not_before=DatabaseNow(-1))

    assert lanes.release("default", ["a"], MINE).taken == [made]


@pytest.mark.skipif(DATABASE.startswith("sqlite"), reason="It has no locks of rows.")
@pytest.mark.django_db(transaction=True)
def test_a_row_that_somebody_has_locked_is_left_and_told():
    waiting("a")
    free = waiting("b")
    others = []

    def release():
        others.append(lanes.release("default", ["a", "b"], MINE))
        connection.close()

    with transaction.atomic():
        Delivery.objects.filter(lane="a").update(reason="being replaced")
        thread = threading.Thread(target=release)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), "it must not wait for the other transaction"

    (released,) = others
    assert released.taken == [free]
    assert released.blocked == {"a"}


@pytest.mark.skipif(DATABASE.startswith("sqlite"), reason="It has no locks of rows.")
@pytest.mark.django_db(transaction=True)
def test_who_will_not_come_back_waits_a_little_for_a_row_that_is_locked(monkeypatch):
    locked, free = waiting("a"), waiting("b")
    passed_over, others = threading.Event(), []
    go = threading.Event()

    def release():
        others.append(lanes.release_at_last("default", ["a", "b"], MINE))
        connection.close()

    def sleep(seconds):
        passed_over.set()
        assert go.wait(10)

    monkeypatch.setattr(lanes, "sleep", sleep)
    thread = threading.Thread(target=release)
    with transaction.atomic():
        Delivery.objects.filter(lane="a").update(reason="being looked at")
        thread.start()
        assert passed_over.wait(10)
    go.set()
    thread.join(10)

    (released,) = others
    assert released.taken == [free, locked]
    assert released.blocked == frozenset()


def test_who_will_not_come_back_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(lanes, "RELEASE_SECONDS", 0.05)
    monkeypatch.setattr(lanes, "release", lambda *_: lanes.Released(blocked=frozenset("a")))

    assert lanes.release_at_last("default", ["a"], MINE).blocked == {"a"}


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
