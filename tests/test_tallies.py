"""What a worker that ends says of its work."""

from collections import Counter

import pytest

from signal_dispatch import tallies
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.scopes import Scope
from signal_dispatch.signals import delivery_finished
from signal_dispatch.tallies import Tally, left_on
from tests.deliveries import delivery, new

on_both = pytest.mark.django_db(databases=["default", "other"])

SCOPE = Scope(
    "", frozenset({"crm"}), frozenset({("shop.Told", "shop.order")}), frozenset({"tenant"})
)


@on_both
def test_what_is_left_is_counted_by_what_has_to_happen():
    delivery()
    delivery(available_at=DatabaseNow(60))
    delivery(available_at=DatabaseNow(60), held_by="alive")
    delivery(available_at=None, state="waiting", endpoint="tenant:42")
    delivery(available_at=None, state="failed")
    delivery(endpoint="tenant")
    for foreign in ({"environment": "x"}, {"endpoint": "x"}, {"dispatch": "x"}, {"model": "x"}):
        delivery(**foreign)

    assert left_on("default", SCOPE) == Counter(due=1, scheduled=1, held=1, waiting=1, foreign=5)


@on_both
def test_what_is_due_and_left_because_of_a_rate_is_told_apart():
    delivery()
    delivery(endpoint="tenant:42")

    assert left_on("default", SCOPE, {"crm"}) == Counter(due=1, slowed=1)


@on_both
def test_only_outboxes_that_were_looked_into_are_counted():
    tally = Tally()
    delivery("other")
    assert tally.report(SCOPE) == "Delivered 0, failed 0. Nothing is left."
    tally.looked("other")
    tally.looked("default")

    assert tally.report(SCOPE) == "Delivered 0, failed 0. Left: 1 due."


@on_both
def test_what_ends_inside_of_the_block_is_counted():
    tally = Tally()
    for finished in ("delivered", "failed", "failed"):
        with tally.counting():
            delivery_finished.send(sender=None, delivery=new(state=finished))
    delivery_finished.send(sender=None, delivery=new(state="delivered"))

    assert tally.report(SCOPE) == "Delivered 1, failed 2. Nothing is left."


@pytest.mark.django_db
def test_where_a_test_may_not_look_nothing_is_counted(monkeypatch):
    tally = Tally()
    tally.looked("default")
    tally.looked("other")
    delivery()
    assert tally.report(SCOPE) == "Delivered 0, failed 0. Left: 1 due."
    monkeypatch.setattr(tallies, "left_on", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        tally.report(SCOPE)
