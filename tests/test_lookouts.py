"""When others are told to look into an outbox, and when the next look is."""

from math import inf

import pytest
from django.db import OperationalError

from signal_dispatch import claims, lookouts, outboxes, pausing
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.lookouts import GRACE_SECONDS, NAP_SECONDS, Lookout
from signal_dispatch.models import Delivery
from signal_dispatch.naps import MAX_SLEEP_SECONDS
from signal_dispatch.scopes import Kind, Scope
from signal_dispatch.sweeping import REPAIR_SECONDS
from tests.deliveries import delivery

SCOPE = Scope("", frozenset({"crm"}), frozenset({("shop.Told", "shop.order")}))
pytestmark = pytest.mark.django_db


class Look:
    """A lookout with a clock that stands still, and whom it called."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        for module in (lookouts, outboxes):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)
        self.calls, self.freed = [], []
        self.lookout = Lookout(
            lambda: SCOPE,
            self.calls.append,
            lambda using, idle: self.freed.append((using, idle)),
            sweep_seconds=5.0,
        )
        self.lookout._outboxes = outboxes.Outboxes(["default"])

    def __call__(self):
        self.calls.clear()
        self.lookout.look()
        return bool(self.calls)

    @property
    def wait(self):
        return self.lookout.next_at - self.now


@pytest.fixture
def look(monkeypatch):
    return Look(monkeypatch)


def test_nobody_is_called_at_rest(look):
    assert not look()
    assert look.wait == MAX_SLEEP_SECONDS


@pytest.mark.parametrize(
    ("values", "called"),
    [
        ({"available_at": DatabaseNow(-GRACE_SECONDS - 1)}, True),
        ({"available_at": DatabaseNow()}, False),
        ({"available_at": DatabaseNow(), "retried": True, "attempts": 1}, True),
        ({"available_at": DatabaseNow(-60), "held_by": "dead", "epoch": 1}, True),
        ({"available_at": DatabaseNow(-60), "endpoint": "other"}, False),
        ({"available_at": DatabaseNow(-60), "dispatch": "shop.Newer"}, False),
        ({"available_at": DatabaseNow(-60), "environment": "staging"}, False),
    ],
)
def test_who_is_due_and_was_not_taken_is_called_for(look, values, called):
    delivery(**values)

    assert look() is called


def test_a_first_attempt_gets_time_until_its_message_is_taken(look):
    delivery()

    assert not look()
    assert 0 < look.wait <= GRACE_SECONDS


def test_while_something_is_scheduled_it_looks_now_and_then(look):
    delivery(available_at=DatabaseNow(600), retried=True)

    assert not look()
    assert look.wait == 5.0


def test_it_looks_when_the_next_retry_is_due(look):
    delivery(available_at=DatabaseNow(3), retried=True)
    look()

    assert 2 < look.wait <= 3


def test_nobody_is_called_for_an_endpoint_that_is_paused(look):
    delivery(available_at=DatabaseNow(-60))
    pausing.pause("crm", by="ann")

    assert not look()
    assert look.wait == MAX_SLEEP_SECONDS


def test_while_the_same_one_stays_due_it_calls_more_and_more_seldom(look, monkeypatch):
    due = {"since": 900.0}
    monkeypatch.setattr(
        claims,
        "seconds_until_due",
        lambda using, scope: {Kind("crm", retried=True): due["since"] - look.now},
    )
    waits = []
    for _look in range(8):
        assert look()
        waits.append(look.wait)
        look.now += look.wait
    due["since"] += 10
    assert look()

    assert waits == [1, 2, 4, 8, 16, 32, MAX_SLEEP_SECONDS, MAX_SLEEP_SECONDS]
    assert look.wait == NAP_SECONDS, "somebody works on them"


def test_lanes_that_wait_behind_nothing_are_found_now_and_then(look):
    delivery(lane="idle", state="waiting", available_at=None)
    look()
    assert look.freed == []
    look.now += REPAIR_SECONDS + 1
    look()
    look()

    assert look.freed == [("default", ["idle"])]


def test_a_database_that_refuses_rests(look, monkeypatch):
    def refuse(using, scope):
        raise OperationalError("gone")

    monkeypatch.setattr(claims, "seconds_until_due", refuse)
    look()

    assert 0 < look.wait < MAX_SLEEP_SECONDS
    assert look.lookout.aliases() == []


def test_a_database_that_a_test_refuses_is_left_out(look):
    look.lookout._outboxes = outboxes.Outboxes(["other"])

    assert not look()
    assert look.wait == MAX_SLEEP_SECONDS
    assert look.lookout.count_open() == 0


def test_what_is_expected_makes_it_look_sooner_and_never_later(look):
    look()
    look.lookout.expect(10)
    look.lookout.expect(inf)

    assert look.wait == 10


def test_what_is_open_is_counted(look, monkeypatch):
    delivery()
    delivery(held_by="somebody", available_at=DatabaseNow(30))
    delivery(available_at=DatabaseNow(30))
    delivery(lane="idle", state="waiting", available_at=None)
    delivery(lane="busy", available_at=DatabaseNow(30))
    delivery(lane="busy", state="waiting", available_at=None)
    assert look.lookout.count_open() == 3
    pausing.pause("crm", by="ann")
    assert look.lookout.count_open() == 0

    def refuse(scope, using):
        raise OperationalError("gone")

    monkeypatch.setattr(Scope, "rows", refuse)
    with pytest.raises(OperationalError):
        look.lookout.count_open()


def test_rows_are_only_looked_at(look):
    made = delivery(available_at=DatabaseNow(-60))
    before = Delivery.objects.filter(pk=made.pk).values().get()
    look()

    assert Delivery.objects.filter(pk=made.pk).values().get() == before
