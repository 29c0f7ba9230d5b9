"""What was there when somebody asked."""

import pytest
from django.core.signing import BadSignature

from signal_dispatch.clocks import DatabaseNow, StoredMoment
from signal_dispatch.horizons import Horizon
from signal_dispatch.models import Delivery
from tests.deliveries import delivery

pytestmark = pytest.mark.django_db

DELIVERED = {"state": "delivered", "available_at": None}


def seen(horizon):
    return list(horizon.narrow(Delivery.objects.order_by("pk")).values_list("pk", flat=True))


def test_what_is_recorded_or_finished_later_is_beyond_it():
    was = [delivery(**DELIVERED, finished_at=DatabaseNow(-60)), delivery()]
    ends = delivery()

    horizon = Horizon.of("default")
    delivery(**DELIVERED, finished_at=DatabaseNow(-60))
    Delivery.objects.filter(pk=ends.pk).update(**DELIVERED, finished_at=DatabaseNow(0.1))

    assert seen(horizon) == [each.pk for each in was]


def test_what_was_finished_in_the_same_moment_is_within_it():
    """Whatever places a database gives to the fraction of a second."""
    made = delivery(**DELIVERED)
    moment = Horizon.of("default").moment.replace(microsecond=0)

    Delivery.objects.update(finished_at=StoredMoment(moment))

    assert seen(Horizon(made.pk, moment)) == [made.pk]


def test_it_comes_back_from_a_form_as_it_was():
    delivery()
    horizon = Horizon.of("default")

    assert Horizon.posted({"horizon": horizon.as_text()}) == horizon


def test_in_an_empty_outbox_nothing_is_meant():
    horizon = Horizon.of("default")
    delivery()

    assert seen(horizon) == []


@pytest.mark.parametrize("post", [{}, {"horizon": ""}, {"horizon": "WzEsMl0:1:forged"}])
def test_what_was_not_written_by_it_is_none(post):
    assert Horizon.posted(post) is None
    with pytest.raises((BadSignature, KeyError)):
        Horizon.from_text(post["horizon"])


def test_without_time_zones_it_holds_as_well(settings):
    settings.USE_TZ = False
    was = delivery(**DELIVERED, finished_at=DatabaseNow(-60))
    horizon = Horizon.posted({"horizon": Horizon.of("default").as_text()})

    assert seen(horizon) == [was.pk]


def test_a_lane_in_which_something_was_finished_later_has_moved():
    stays, moves, loose = delivery(lane="a"), delivery(lane="b"), delivery()
    delivery(**DELIVERED, lane="a", finished_at=DatabaseNow(-60))
    horizon = Horizon.of("default")
    for lane in ("b", ""):
        delivery(**DELIVERED, lane=lane, finished_at=DatabaseNow(0.1))

    mine = Delivery.objects.filter(pk__in=[stays.pk, moves.pk, loose.pk]).order_by("pk")
    assert list(horizon.unmoved(mine).values_list("pk", flat=True)) == [stays.pk, loose.pk]
