"""Moments are kept in UTC, whatever time zones a site has chosen."""

from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from django.db import connection
from django.utils import timezone

from signal_dispatch.clocks import DatabaseNow, SecondsFromNow, StoredMoment
from signal_dispatch.models import Attempt, Delivery
from tests.deliveries import attempt_of, delivery
from tests.once import ONCE

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["without zones, Tokyo", "without zones, New York", "database in Tokyo"])
def elsewhere(request, settings):
    """Let the site's times be hours away from UTC."""
    if request.param == "database in Tokyo":
        with mock.patch.dict(connection.settings_dict, TIME_ZONE="Asia/Tokyo"):
            forget_zone()
            yield
        forget_zone()
    else:
        settings.USE_TZ = False
        settings.TIME_ZONE = "Asia/Tokyo" if "Tokyo" in request.param else "America/New_York"
        yield


def forget_zone():
    """Let the connection look anew which time zone its database has."""
    for name in ("timezone", "timezone_name"):
        vars(connection).pop(name, None)
    connection.ensure_timezone()


def test_what_the_database_wrote_is_read_as_the_time_that_it_is(elsewhere):
    delivery()

    created = Delivery.objects.get().created_at

    assert abs(created - timezone.now()) < timedelta(minutes=10)
    assert Delivery.objects.values_list("available_at", flat=True).get() is not None
    now = Delivery.objects.annotate(now=DatabaseNow()).get().now
    assert abs(now - timezone.now()) < timedelta(minutes=10)


def test_what_a_host_wrote_is_as_long_ago_for_the_database(elsewhere):
    attempt_of(delivery(), started_at=timezone.now()).save()

    ago = Attempt.objects.annotate(began_in=SecondsFromNow("started_at")).get().began_in

    assert abs(ago) < 600


def test_moments_come_back_as_they_were_given(elsewhere):
    moment = timezone.now().replace(microsecond=0)
    delivery(created_at=moment)

    assert Delivery.objects.get(created_at=moment).created_at == moment


def test_what_is_compared_is_meant_as_it_was_read(elsewhere):
    delivery(created_at=DatabaseNow(-7200))
    made = delivery(created_at=DatabaseNow(-60))
    hour_ago = timezone.now() - timedelta(hours=1)

    assert Delivery.objects.get(created_at__gt=hour_ago) == made
    made.refresh_from_db()
    assert Delivery.objects.get(created_at__gte=StoredMoment(made.created_at)) == made


# PostgreSQL has a type for moments; there Django alone writes them.
@ONCE
def test_both_hours_of_a_night_with_two_are_told_apart(settings):
    settings.USE_TZ = False
    settings.TIME_ZONE = "America/New_York"
    first = datetime(2026, 11, 1, 1, 30)  # noqa: DTZ001
    delivery(created_at=first)
    made = delivery(created_at=first.replace(fold=1))

    read = Delivery.objects.get(pk=made.pk).created_at

    assert read.astimezone(UTC).hour == 6
    assert Delivery.objects.get(created_at=read) == made
