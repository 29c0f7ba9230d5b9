"""What retention deletes, what it leaves, how it goes on, and what it costs."""

import logging
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.db.models.signals import pre_delete
from django.test.testcases import DatabaseOperationForbidden
from django.test.utils import CaptureQueriesContext

from signal_dispatch import pruning
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import UNFINISHED, Attempt, Delivery, State
from signal_dispatch.pruning import KEPT_AS, PASS_SECONDS, Pruner, expired, step
from tests.deliveries import attempt_of, delivery

pytestmark = pytest.mark.django_db

DAY = 86400.0
WEEK = 7 * DAY


def finished(state="delivered", days=10.0, **values):
    return delivery(state=state, available_at=None, finished_at=DatabaseNow(-days * DAY), **values)


def left():
    return set(Delivery.objects.values_list("pk", flat=True))


def prune_all(using="default"):
    """Make every step of one pass; return how many were deleted."""
    deleted = 0
    for state in KEPT_AS:
        place = None
        while True:
            made = step(expired(using, state), using, place)
            deleted, place = deleted + made.deleted, made.place
            if place is None:
                break
    return deleted


def test_finished_ones_go_when_their_time_is_over():
    kept = [
        finished("delivered", 6.9),
        finished("cancelled", 6.9),
        finished("failed", 29.9),
    ]
    for state, days in (("delivered", 7.1), ("cancelled", 7.1), ("failed", 30.1)):
        finished(state, days)

    assert prune_all() == 3
    assert left() == {made.pk for made in kept}


def test_what_is_unfinished_stays_however_old_it_is():
    old = DatabaseNow(-1000 * DAY)
    for state in UNFINISHED:
        delivery(state=state, created_at=old, available_at=old, finished_at=old)

    assert prune_all() == 0
    assert not set(KEPT_AS) & set(UNFINISHED)
    assert set(KEPT_AS) | set(UNFINISHED) == set(State)


def test_attempts_go_with_their_delivery_and_no_others():
    kept = attempt_of(finished(days=1))
    kept.save()
    gone = finished()
    for number in (1, 2):
        attempt_of(gone, number=number).save()

    assert prune_all() == 1
    assert list(Attempt.objects.all()) == [kept]


def test_nothing_is_read_or_signalled_for_each_row():
    def listen(**kwargs):
        raise AssertionError("an app that listens to deletes is asked for each row")

    for _ in range(5):
        attempt_of(finished()).save()
    pre_delete.connect(listen)
    try:
        with CaptureQueriesContext(connection) as queries:
            assert prune_all() == 5
    finally:
        pre_delete.disconnect(listen)
    assert len([q for q in queries if q["sql"].startswith("DELETE")]) == 2


def test_settings_say_how_long(settings):
    settings.SIGNAL_DISPATCH_RETENTION = {"delivered": timedelta(hours=1), "failed": None}
    kept = [finished("delivered", 1 / 25), finished("failed", 1000)]
    finished("delivered", 1 / 23)
    finished("cancelled", 2)

    assert prune_all() == 2
    assert left() == {made.pk for made in kept}


def test_rows_of_another_environment_are_left_to_it(settings):
    other = finished(environment="production")
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"
    finished(environment="staging")

    assert prune_all() == 1
    assert left() == {other.pk}


# What the order of a lane rests on.


def test_a_busy_lane_keeps_all_it_has():
    lane = {"lane": "a"}
    finished("cancelled", attempts=1, **lane)
    finished("delivered", **lane)
    finished("failed", 100, **lane)
    waiting = delivery(state="waiting", available_at=None, **lane)
    assert prune_all() == 0

    waiting.state, waiting.finished_at = State.DELIVERED, DatabaseNow()
    waiting.save()
    assert prune_all() == 3


def test_a_lane_keeps_its_latest_while_an_older_one_can_be_tried_again():
    failed = finished("failed", 20, lane="a")
    for _ in range(2):
        finished(days=19, lane="a")
    latest = finished(days=18, lane="a")

    assert prune_all() == 2
    assert left() == {failed.pk, latest.pk}
    assert not failed.is_latest
    Delivery.objects.filter(pk=failed.pk).update(finished_at=DatabaseNow(-31 * DAY))
    prune_all()
    prune_all()
    assert left() == set()


def test_a_lane_of_one_kind_goes_as_a_whole():
    for state in ("failed", "delivered"):
        for _ in range(3):
            finished(state, 40, lane=state)

    prune_all()
    assert Delivery.objects.filter(lane="delivered").count() == 0
    prune_all()
    assert left() == set()


def test_without_a_lane_what_is_later_than_an_unfinished_one_of_its_object_stays():
    earlier = finished()
    late = delivery(available_at=DatabaseNow(DAY))
    later = finished()
    others = [finished(object_pk=2), finished(model="shop.tag"), finished(endpoint="erp")]

    assert prune_all() == 1 + len(others)
    assert left() == {late.pk, later.pk}
    assert earlier.pk not in left()
    assert not late.is_latest


# Step by step.


@pytest.fixture
def steps_of_two(monkeypatch):
    monkeypatch.setattr(pruning, "STEP", 2)


def test_a_step_is_bounded_and_the_next_goes_on_behind_what_is_kept(steps_of_two):
    busy = [finished(days=20 - n, lane="a") for n in range(3)]
    busy.append(delivery(lane="a"))
    for n in range(3):
        finished(days=15 - n)
    places, place = [], None
    while True:
        made = step(expired("default", State.DELIVERED), "default", place)
        places.append(made.deleted)
        place = made.place
        if place is None:
            break

    assert places == [0, 1, 2, 0]
    assert left() == {made.pk for made in busy}


def test_rows_of_one_moment_are_passed_over_once_each(steps_of_two):
    moment = finished(lane="a")
    moment.refresh_from_db()
    for _ in range(6):
        delivery(state="delivered", available_at=None, finished_at=moment.finished_at, lane="a")
    busy = delivery(lane="a")
    # As the database's own clock writes it, which Django does not.
    Delivery.objects.exclude(pk=busy.pk).update(finished_at=DatabaseNow(-10 * DAY))
    places, place = [], None
    while True:
        made = step(expired("default", State.DELIVERED), "default", place)
        place = made.place
        if place is None:
            break
        places.append(place.pk)
        assert len(places) < 10

    assert len(places) == len(set(places)) == 3
    assert len(left()) == 8


def test_one_that_is_tried_again_meanwhile_stays(monkeypatch):
    made = finished()
    attempt_of(made).save()
    found = pruning._free_outside

    def retried(*arguments):
        free = list(found(*arguments))
        Delivery.objects.update(state=State.PENDING, finished_at=None)
        return free

    monkeypatch.setattr(pruning, "_free_outside", retried)

    assert step(expired("default", State.DELIVERED), "default").deleted == 0
    assert left() == {made.pk}
    assert Attempt.objects.count() == 1


# Once an hour.


class Clock:
    """A clock that stands still until it is set, and no chance."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(pruning, "monotonic", lambda: self.now)
        monkeypatch.setattr(pruning, "_share", lambda: 0.5)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def pruner(clock):
    return Pruner(lambda: ["default"])


def questions(work):
    with CaptureQueriesContext(connection) as queries:
        work()
    return len(queries)


def test_a_pass_begins_within_the_hour_and_again_an_hour_later(clock, pruner):
    assert questions(pruner.prune) == 0
    clock.now += PASS_SECONDS / 2
    assert [questions(pruner.prune) for _ in range(4)] == [1, 1, 1, 0]
    clock.now += PASS_SECONDS
    assert questions(pruner.prune) == 0
    clock.now += PASS_SECONDS * 0.1
    assert questions(pruner.prune) == 1


def test_with_nothing_to_do_it_wakes_nobody(clock, pruner):
    assert pruner.next_at == float("inf")
    clock.now += PASS_SECONDS
    for _ in KEPT_AS:
        pruner.prune()
        assert pruner.next_at == float("inf")


def test_with_more_to_do_it_goes_on_soon(clock, pruner, steps_of_two):
    for _ in range(5):
        finished()
    clock.now += PASS_SECONDS
    steps = 0
    pruner.prune()
    while pruner.next_at < float("inf"):
        assert 0 < pruner.next_at - clock.now < 1
        clock.now = pruner.next_at
        pruner.prune()
        steps += 1

    assert (steps, left()) == (2, set())


def test_a_slow_step_is_followed_by_a_long_pause(clock, pruner, steps_of_two, monkeypatch):
    for _ in range(3):
        finished()
    clock.now += PASS_SECONDS
    made = pruning.step

    def slow(*arguments):
        clock.now += 2
        return made(*arguments)

    monkeypatch.setattr(pruning, "step", slow)
    pruner.prune()

    assert pruner.next_at - clock.now == 2 * pruning.PAUSE_TIMES


def test_without_an_outbox_there_is_nothing_to_do(clock):
    pruner = Pruner(list)
    clock.now += PASS_SECONDS
    assert questions(pruner.prune) == 0
    assert pruner.next_at == float("inf")


@pytest.mark.parametrize(
    ("error", "shown"), [(OperationalError("gone"), False), (ValueError("odd"), True)]
)
def test_what_can_not_be_pruned_is_a_warning_and_waits_for_the_next_pass(
    clock, pruner, caplog, error, shown
):
    finished()
    clock.now += PASS_SECONDS

    def refuse(execute, *rest):
        raise error

    with connection.execute_wrapper(refuse), caplog.at_level(logging.WARNING):
        pruner.prune()
    assert questions(pruner.prune) == 0
    (record,) = caplog.records
    assert "'default' could not be pruned" in record.getMessage()
    assert (record.action, bool(record.exc_info)) == ("prune_failed", shown)
    clock.now += 2 * PASS_SECONDS
    pruner.prune()
    assert left() == set()


def test_a_database_that_a_test_may_not_ask_is_passed_over(clock, pruner, caplog):
    clock.now += PASS_SECONDS

    def refuse(execute, *rest):
        raise DatabaseOperationForbidden("no")

    with connection.execute_wrapper(refuse), caplog.at_level(logging.WARNING):
        pruner.prune()

    assert questions(pruner.prune) == 0
    assert caplog.records == []
