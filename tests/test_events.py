"""What a change tells about its field's values."""

from dataclasses import FrozenInstanceError

import pytest

from signal_dispatch import Change, Event
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = ONCE


def updated(**values):
    return Change(Event.UPDATED, Order(status="paid", total=12), "default", **values)


def test_everything_changed_when_it_was_created():
    change = Change(Event.CREATED, Order(status="paid"), "default")

    assert change.changed("status")
    assert change.became("status", "paid")
    assert not change.became("status", "draft")


def test_a_field_changed_when_it_differs_from_what_stood_in_the_database():
    change = updated(old={"status": "draft", "total": 12})

    assert change.changed("status")
    assert not change.changed("total")
    assert change.became("status", "paid")
    assert not change.became("total", 12), "it was that before"


def test_what_stands_in_the_database_now_counts_more_than_the_instance():
    change = updated(old={"status": "draft"}, new={"status": "draft"})

    assert not change.changed("status")


@pytest.mark.parametrize("ask", [Change.changed, lambda c, n: c.became(n, 1)])
def test_an_untracked_field_is_refused_with_the_cure(ask):
    with pytest.raises(ValueError, match=r"'notes'.*'track'.*known here: status"):
        ask(updated(old={"status": "draft"}), "notes")
    with pytest.raises(ValueError, match="known here: none"):
        ask(updated(), "notes")


def test_a_change_cannot_be_rewritten():
    with pytest.raises(FrozenInstanceError):
        updated().event = Event.DELETED
