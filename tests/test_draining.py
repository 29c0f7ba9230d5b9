"""What one message makes a worker do."""

import pytest

from signal_dispatch import draining, lanes, pausing
from signal_dispatch.backends import BaseBackend
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.draining import drain
from signal_dispatch.models import Delivery
from tests.deliveries import delivery
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
]


@pytest.fixture
def scope(receiver, declare):
    declare(Order)
    return BaseBackend("default").scope()


def states():
    return list(Delivery.objects.order_by("id").values_list("state", "held_by"))


def test_those_it_names_are_sent_and_no_others(scope, receiver):
    made = [delivery(path=f"{number}") for number in range(4)]

    assert drain(scope, "default", [d.pk for d in made[:3]]) is None
    assert [r.path for r in receiver.requests] == ["/0", "/1", "/2"]
    assert states() == [("delivered", "")] * 3 + [("pending", "")]


def test_without_names_all_that_is_due_is_sent(scope, receiver, monkeypatch):
    monkeypatch.setattr(draining, "SHARE", 2)
    for number in range(5):
        delivery(path=f"{number}")
    delivery(path="later", available_at=DatabaseNow(60))
    drain(scope, "default", [])

    assert len(receiver.requests) == 5
    assert states()[-1] == ("pending", "")


def test_a_message_that_comes_again_finds_nothing_to_do(scope, receiver):
    pk = delivery().pk
    drain(scope, "default", [pk])
    drain(scope, "default", [pk])

    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"held_by": "somebody", "epoch": 1, "available_at": DatabaseNow(30)},
        {"available_at": DatabaseNow(30)},
        {"state": "cancelled", "available_at": None},
        {"dispatch": "shop.Newer"},
        {"environment": "staging"},
    ],
)
def test_what_is_not_due_or_not_ours_is_left_alone(scope, receiver, values):
    made = delivery(**values)
    drain(scope, "default", [made.pk])

    assert receiver.requests == []
    made.refresh_from_db()
    assert made.held_by == values.get("held_by", "")
    assert made.epoch == values.get("epoch", 0)


def test_the_next_of_the_lane_is_sent_along(scope, receiver):
    head = delivery(lane="a", path="1")
    delivery(lane="a", path="2", state="waiting", available_at=None)
    drain(scope, "default", [head.pk])

    assert [r.path for r in receiver.requests] == ["/1", "/2"]
    assert states() == [("delivered", "")] * 2


def test_it_says_when_the_first_retry_is_due(scope, receiver, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": receiver.url, "RETRY": {"delays": [0, 30], "jitter": 0}}
    }
    receiver.play((503, {}, b""), (200, {}, b""))
    made = [delivery().pk, delivery().pk]

    assert drain(scope, "default", made) == 30


def test_an_endpoint_that_is_paused_is_not_even_claimed_for(scope, receiver):
    made = delivery()
    pausing.pause("crm", by="ann")
    drain(scope, "default", [made.pk])
    drain(scope, "default", [])

    assert receiver.requests == []
    made.refresh_from_db()
    assert made.epoch == 0


def test_what_takes_too_long_is_left_to_others(scope, receiver, monkeypatch):
    made = [delivery(lane="a", path="1")]
    made += [delivery(lane="a", path="2", state="waiting", available_at=None)]
    receiver.script = lambda request: (
        monkeypatch.setattr(draining.Bounds, "allow", never) or (200, {}, b"")
    )

    def never(bounds, delivery):
        bounds._until = 0
        return allow(bounds, delivery)

    allow = draining.Bounds.allow
    drain(scope, "default", [made[0].pk])

    assert [r.path for r in receiver.requests] == ["/1"]
    assert states() == [("delivered", ""), ("pending", "")]


def test_a_lane_that_was_locked_is_looked_into_once_more(scope, receiver, monkeypatch):
    head = delivery(lane="a", path="1")
    delivery(lane="a", path="2", state="waiting", available_at=None)
    release, looked = lanes.release, []

    def locked_first(using, wanted, lease):
        looked.append(wanted)
        if len(looked) == 1:
            return lanes.Released(blocked=frozenset(wanted))
        return release(using, wanted, lease)

    monkeypatch.setattr(lanes, "release", locked_first)
    drain(scope, "default", [head.pk])

    assert states() == [("delivered", "")] * 2
