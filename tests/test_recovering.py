"""What comes forward once an endpoint answers again, how soon, and what does not."""

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from signal_dispatch import recovering
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery
from signal_dispatch.recovering import bring_forward
from tests.deliveries import delivery, seconds_until

pytestmark = pytest.mark.django_db


def waiting(seconds=3600.0, **values):
    defaults = {"retried": True, "attempts": 3, "available_at": DatabaseNow(seconds)}
    return delivery(**defaults | values)


def seconds_left(made):
    return seconds_until(Delivery.objects.get(pk=made.pk).available_at)


def test_retries_that_wait_are_due_within_seconds():
    made = [waiting(), waiting(7200), waiting(30)]

    assert bring_forward("default", "crm") == 3
    assert all(-2 < seconds_left(each) < 1 for each in made)


@pytest.mark.parametrize(
    "values",
    [
        {"retried": False},  # a delay that the site asked for
        {"held_by": "somebody", "epoch": 1},  # in flight
        {"endpoint": "hubspot"},
        {"environment": "staging"},
    ],
)
def test_nothing_else_is_moved(values):
    made = waiting(**values)

    assert bring_forward("default", "crm") == 0
    assert seconds_left(made) > 3500


def test_a_retry_never_comes_before_the_remote_asked_for_it():
    asked = waiting(3600, not_before=DatabaseNow(3600))
    sooner = waiting(7200, not_before=DatabaseNow(3600))
    over = waiting(3600, not_before=DatabaseNow(-60))
    Delivery.objects.filter(pk=asked.pk).update(available_at=F("not_before"))

    assert bring_forward("default", "crm") == 2
    assert 3500 < seconds_left(asked) < 3601
    assert 3500 < seconds_left(sooner) < 3601
    assert seconds_left(over) < 2


def test_nothing_is_put_off_by_it(monkeypatch):
    monkeypatch.setattr(recovering, "BATCH", 1)  # so that it spreads as over many
    monkeypatch.setattr(recovering, "SPREAD_SECONDS", 3000.0)
    made = [waiting(20) for _ in range(3)]
    bring_forward("default", "crm")

    assert all(seconds_left(each) < 21 for each in made)


def test_many_are_spread_and_written_in_batches(monkeypatch):
    monkeypatch.setattr(recovering, "BATCH", 20)
    made = [waiting() for _ in range(50)]
    with CaptureQueriesContext(connection) as queries:
        assert bring_forward("default", "crm") == 50
    moments = sorted(round(seconds_left(each), 3) for each in made)

    assert moments[-1] < 31
    assert len(set(moments)) > 40, "not all at once"
    assert len([q for q in queries if q["sql"].startswith("UPDATE")]) == 3


def test_what_failed_again_after_it_came_forward_waits_its_whole_next_time():
    made = waiting()
    moved = []
    for attempts in (3, 3, 4, 5, 6, 7):
        Delivery.objects.filter(pk=made.pk).update(
            attempts=attempts, available_at=DatabaseNow(3600)
        )
        moved.append(bring_forward("default", "crm"))

    assert moved == [1, 0, 0, 1, 0, 1]
