from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from signal_dispatch import attempt_rows
from signal_dispatch.models import Attempt
from signal_dispatch.outcomes import OutcomeKind
from tests.deliveries import attempt_of, delivery

pytestmark = pytest.mark.django_db


def attempts(made):
    """Two attempts that leave no column as it is by default."""
    answered = attempt_of(
        made,
        number=1,
        started_at=timezone.now() - timedelta(days=200),  # in the other half of the year
        duration_ms=4_000_000,
        outcome=OutcomeKind.RETRY,
        status_code=503,
        error_class="status",
        error="It answered 503: 'no' \u20ac % %s.",
        response_headers={"Retry-After": "5", "X": "\u20ac"},
        response_body=b"\x00\xff\xc3'%\\",
        truncated=True,
        sender="host:1:abc",
    )
    return [answered, attempt_of(made, number=2)]


def rows(**chosen):
    columns = [f.attname for f in Attempt._meta.concrete_fields if f.name not in ("id", "delivery")]
    found = Attempt.objects.filter(**chosen).order_by("number").values(*columns)
    return [{**row, "response_body": bytes(row["response_body"])} for row in found]


@pytest.mark.parametrize("time_zone", ["UTC", "Asia/Tokyo"])
def test_rows_are_those_that_django_would_write(settings, time_zone):
    settings.TIME_ZONE = time_zone
    ours, djangos = delivery(), delivery()
    attempt_rows.insert(attempts(ours), "default")
    Attempt.objects.bulk_create(attempts(djangos))

    written = rows(delivery=ours)
    expected = rows(delivery=djangos)
    for row, other in zip(written, expected, strict=True):
        assert abs(row.pop("started_at") - other.pop("started_at")) < timedelta(seconds=30)
    assert written == expected
    assert written[0]["response_body"] == b"\x00\xff\xc3'%\\"


def test_they_have_their_numbers_where_the_database_tells_them():
    made = attempts(delivery())
    attempt_rows.insert(made, "default")

    if connection.features.can_return_rows_from_bulk_insert:
        stored = Attempt.objects.order_by("number")
        assert [each.pk for each in made] == [each.pk for each in stored]
    else:
        assert [each.pk for each in made] == [None, None]
    assert [(each._state.db, each._state.adding) for each in made] == [("default", False)] * 2


def test_a_number_that_was_rolled_back_is_not_used_again():
    made = attempts(delivery())
    with transaction.atomic():
        attempt_rows.insert(made, "default")
        transaction.set_rollback(True)
    Attempt.objects.bulk_create([attempt_of(delivery())])  # SQLite gives out the number again
    attempt_rows.insert(made, "default")

    assert Attempt.objects.count() == 3


def test_what_no_database_can_store_is_left_out():
    attempt_rows.insert([attempt_of(delivery(), error="a\x00b\ud800")], "default")

    assert Attempt.objects.get().error.startswith("a")


def test_none_takes_no_statement(django_assert_num_queries):
    with django_assert_num_queries(0):
        attempt_rows.insert([], "default")


def test_many_are_one_statement(django_assert_num_queries):
    made = delivery()
    with django_assert_num_queries(1):
        attempt_rows.insert([attempt_of(made, number=n) for n in range(40)], "default")

    assert Attempt.objects.count() == 40


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(IntegrityError), transaction.atomic():
        attempt_rows.insert([attempt_of(delivery(), outcome=None)], "default")
