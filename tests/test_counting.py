"""What an attempt adds to its endpoint's minute, and what the breaker reads of it."""

import threading

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from signal_dispatch import counting
from signal_dispatch.clocks import DatabaseMinute, DatabaseNow
from signal_dispatch.endpoint_states import EndpointMinuteQuerySet
from signal_dispatch.models import Attempt, Delivery, EndpointMinute
from tests.deliveries import seconds_until
from tests.once import ONCE

ONE = {"attempts": 1, "breaker_attempts": 1, "breaker_failed": 1}


def attempt(**values):
    return Attempt(delivery=Delivery(), number=1, **{"outcome": "retry"} | values)


def minute(ago=0.0, endpoint="crm", **values):
    began = DatabaseNow(-ago) if ago else DatabaseMinute()
    values = {"breaker_attempts": 10} | values
    return EndpointMinute.objects.create(endpoint=endpoint, minute=began, **values)


@ONCE
@pytest.mark.parametrize(
    ("values", "failed"),
    [
        ({}, True),  # no answer
        *(({"status_code": status}, True) for status in (408, 425, 429, 500, 503, 599)),
        ({"status_code": 429, "outcome": "delivered"}, False),  # get_outcome() knows better
        ({"status_code": 500, "outcome": "rejected"}, False),
        ({"status_code": 200}, False),  # get_outcome() asked to try again
        ({"status_code": 404}, False),
        ({"status_code": 200, "error_class": "handler"}, False),
        ({"status_code": 500, "error_class": "handler"}, False),  # get_outcome() raised
        ({"error_class": "internal"}, False),
        ({"error_class": "timeout"}, True),
        ({"status_code": 404, "outcome": "rejected"}, False),
        ({"status_code": 200, "outcome": "delivered"}, False),
    ],
)
def test_what_the_endpoint_let_down_has_failed(values, failed):
    assert counting.has_failed(attempt(**values)) is failed


@ONCE
@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ({"outcome": "delivered", "status_code": 204, "duration_ms": 99},
         {"delivered": 1, "answered_2xx": 1, "duration_ms": 99, "within_100ms": 1}),
        ({"outcome": "retry", "status_code": 503, "duration_ms": 101},
         {"retried": 1, "answered_5xx": 1, "duration_ms": 101, "within_1s": 1,
          "breaker_failed": 1}),
        ({"outcome": "rejected", "status_code": 404, "duration_ms": 10_000},
         {"rejected": 1, "answered_4xx": 1, "duration_ms": 10_000, "within_10s": 1}),
        ({"outcome": "recreate", "status_code": 410, "duration_ms": 1},
         {"rejected": 1, "answered_4xx": 1, "duration_ms": 1, "within_100ms": 1}),
        ({"outcome": "retry", "duration_ms": 15_000},
         {"retried": 1, "unanswered": 1, "duration_ms": 15_000, "breaker_failed": 1}),
        ({"outcome": "rejected", "status_code": 999, "duration_ms": 1},
         {"rejected": 1, "duration_ms": 1, "within_100ms": 1}),
    ],
)  # fmt: skip
def test_an_attempt_is_counted_by_outcome_answer_and_duration(values, counts):
    assert counting.counts_of(attempt(**values)) == {"attempts": 1, "breaker_attempts": 1, **counts}


@ONCE
def test_what_broke_in_our_own_code_is_no_attempt_at_the_endpoint():
    assert not counting.counts_of(attempt(error_class="internal"))


@pytest.mark.django_db
def test_a_minute_is_one_row_and_one_statement_to_add_to(settings):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"
    counting.add("default", "crm", {"attempts": 2, "duration_ms": 70})
    with CaptureQueriesContext(connection) as queries:
        counting.add("default", "crm", {"attempts": 3, "delivered": 1, "duration_ms": 30})
    row = EndpointMinute.objects.filter(attempts=5).first()
    if row is None:  # the minute ended in between
        return

    assert (row.environment, row.endpoint, row.delivered, row.duration_ms) == (
        "staging",
        "crm",
        1,
        100,
    )
    assert len(queries) == 1
    assert (row.minute.second, row.minute.microsecond) == (0, 0)
    assert -61 < seconds_until(row.minute) < 2


@pytest.mark.django_db
def test_whoever_is_second_to_begin_a_minute_adds_to_it(monkeypatch):
    minute(attempts=5)
    add, added = EndpointMinuteQuerySet.add, []

    def see_nothing_at_first(rows, counts):
        added.append(len(added) > 0 and add(rows, counts))
        return added[-1]

    monkeypatch.setattr(EndpointMinuteQuerySet, "add", see_nothing_at_first)
    counting.add("default", "crm", ONE)

    assert len(added) == (2 if EndpointMinute.objects.count() == 1 else 1)
    assert sum(EndpointMinute.objects.values_list("attempts", flat=True)) == 6


@pytest.mark.django_db(transaction=True)
def test_threads_that_count_at_once_lose_nothing():
    together = threading.Barrier(4)

    def count():
        together.wait(10)
        for _ in range(10):
            counting.add("default", "crm", ONE)
        connections.close_all()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sum(EndpointMinute.objects.values_list("attempts", flat=True)) == 40


@pytest.mark.django_db
def test_the_breaker_reads_the_minutes_that_its_window_touches():
    minute(breaker_failed=1)
    minute(ago=330, breaker_failed=2)
    minute(ago=370, breaker_failed=4)
    minute(endpoint="hubspot", breaker_failed=8)
    minute(environment="staging", breaker_failed=16)

    assert counting.judged("default", "crm", 300) == (20, 3)
    assert counting.judged("default", "slack", 300) == (0, 0)


@pytest.mark.django_db
def test_what_is_older_than_eight_days_is_removed_now_and_then(monkeypatch):
    old, young = minute(ago=8 * 86400 + 90), minute(ago=8 * 86400 - 90)
    monkeypatch.setattr(counting.random, "randrange", lambda most: 1)
    counting.add("default", "crm", ONE)
    assert EndpointMinute.objects.filter(pk=old.pk).exists()
    EndpointMinute.objects.filter(attempts=1).delete()
    monkeypatch.setattr(counting.random, "randrange", lambda most: 0)
    counting.add("default", "crm", ONE)

    assert not EndpointMinute.objects.filter(pk=old.pk).exists()
    assert EndpointMinute.objects.filter(pk=young.pk).exists()
