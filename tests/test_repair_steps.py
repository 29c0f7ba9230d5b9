"""Interventions on all that match: made step by step, once each, whatever happens between."""

import pytest

from signal_dispatch import repair_steps
from signal_dispatch.backends import backends
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.interventions import INTERVENTIONS
from signal_dispatch.models import Delivery, Repair
from signal_dispatch.repair_steps import ask_for, step, stop
from signal_dispatch.selecting import Selection
from tests.deliveries import delivery, seconds_until
from tests.once import ONCE

pytestmark = pytest.mark.django_db

FAILED = {"state": "failed", "available_at": None, "finished_at": DatabaseNow(-60)}


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch):
    monkeypatch.setattr(repair_steps, "STEP", 2)


def asked(what="retry", options=None, **given):
    intervention = INTERVENTIONS[what]
    return ask_for(intervention, Selection.of(given), "default", by="ann", options=options)


def states():
    return list(Delivery.objects.order_by("pk").values_list("state", flat=True))


def all_steps():
    count = 0
    while step("default"):
        count += 1
        assert count < 20
    return count


def test_all_that_match_are_changed_a_few_at_a_time():
    for _ in range(5):
        delivery(**FAILED)
    delivery(**FAILED, endpoint="hubspot")
    repair = asked(state="failed", endpoint="crm")

    assert step("default")
    assert states() == ["pending"] * 2 + ["failed"] * 4
    repair.refresh_from_db()
    assert (repair.looked_at, repair.changed, repair.finished_at) == (2, 2, None)

    assert all_steps() == 2
    assert states() == ["pending"] * 5 + ["failed"]
    repair.refresh_from_db()
    assert (repair.looked_at, repair.changed, repair.error) == (5, 5, "")
    assert -5 < seconds_until(repair.finished_at) < 5


def test_what_comes_later_is_not_meant():
    delivery(**FAILED)
    asked("resend", state="failed")
    delivery(**FAILED)
    Delivery.objects.update(method="PUT")

    all_steps()

    assert states() == ["failed", "failed", "pending"]


@pytest.mark.parametrize("what", ["resend", "rebuild"])
def test_what_is_finished_later_is_not_meant(what):
    delivery(**FAILED, method="PUT", attempts=1)
    meanwhile = delivery(method="PUT", attempts=1)
    asked(what)
    Delivery.objects.filter(pk=meanwhile.pk).update(
        state="delivered", available_at=None, finished_at=DatabaseNow(0.1)
    )

    all_steps()

    assert states() == ["failed", "delivered", "pending"]


def test_nothing_to_do_ends_at_once():
    repair = asked(state="failed")

    assert step("default")
    assert not step("default")
    repair.refresh_from_db()
    assert repair.finished_at


def test_the_oldest_comes_first():
    delivery(**FAILED)
    first, second = asked(state="failed"), asked("cancel", state="pending")

    step("default")

    for repair, ended in ((first, True), (second, False)):
        repair.refresh_from_db()
        assert bool(repair.finished_at) == ended


def test_one_that_somebody_works_on_is_left_alone():
    delivery(**FAILED)
    repair = asked(state="failed")
    Repair.objects.update(taken_by="alive", taken_until=DatabaseNow(30))
    assert not step("default")

    Repair.objects.update(taken_until=DatabaseNow(-1))
    assert step("default")
    repair.refresh_from_db()
    assert (repair.changed, repair.taken_by, repair.taken_until) == (1, "", None)


def test_those_of_another_environment_are_left_alone(settings):
    asked(state="failed")
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"

    assert not step("default")


@pytest.mark.parametrize("what", ["retry", "cancel", "resend", "rebuild", "skip", "repoint"])
def test_a_step_that_is_broken_off_is_made_once_in_the_end(monkeypatch, what):
    """Between what it changes and the note of that, a process may vanish."""
    free = {"lane": "a", "attempts": 1, "method": "PUT"}
    delivery(**free, **({} if what in ("cancel", "skip", "repoint") else FAILED))
    for _ in range(2):
        delivery(lane="a", state="waiting", available_at=None)
    asked(what, {"endpoint": "hubspot"} if what == "repoint" else None)
    with monkeypatch.context() as patched:
        patched.setattr(repair_steps, "F", _vanish)
        with pytest.raises(_Vanished):
            step("default")
    Repair.objects.update(taken_until=DatabaseNow(-1))

    all_steps()

    repair = Repair.objects.get()
    assert (repair.error, bool(repair.finished_at)) == ("", True)
    cancelled = {"cancel": 3, "skip": 1}
    assert states().count("cancelled") == cancelled.get(what, 0)
    assert len(states()) == (4 if what in ("resend", "rebuild") else 3)


class _Vanished(BaseException):
    pass


def _vanish(name):
    raise _Vanished


def test_it_may_be_stopped_between_two_steps():
    for _ in range(3):
        delivery(**FAILED)
    repair = asked(state="failed")
    step("default")

    assert stop(repair.pk, "default", by="bob")
    assert not stop(repair.pk, "default", by="bob")
    assert all_steps() == 0
    repair.refresh_from_db()
    assert (repair.changed, repair.error) == (2, "Stopped by bob.")


@pytest.mark.parametrize(
    ("what", "options", "error"),
    [
        ("repoint", {"dispatch": "shop.Gone", "model": "shop.order"}, "No dispatch 'shop.Gone'"),
        ("repoint", {}, "Name an endpoint"),
        ("repoint", {"colour": "red"}, "colour"),
    ],
)
def test_what_can_not_be_done_ends_with_a_sentence(what, options, error):
    delivery()
    repair = asked(what, options=options)

    assert step("default")
    assert not step("default")
    repair.refresh_from_db()
    assert error in repair.error


def test_what_this_code_does_not_know_ends_with_a_sentence():
    repair = asked(state="failed")
    Repair.objects.update(what="paint")

    step("default")

    repair.refresh_from_db()
    assert repair.error == "This code knows no intervention 'paint'."


def test_a_stored_filter_that_is_no_text_ends_with_a_sentence():
    repair = asked()
    Repair.objects.update(selection={"endpoint": 5})

    all_steps()

    repair.refresh_from_db()
    assert (bool(repair.finished_at), repair.error) == (True, "'endpoint' must be text, and is 5.")


def test_what_was_finished_long_ago_is_forgotten():
    old = asked(state="failed")
    Repair.objects.update(finished_at=DatabaseNow(-repair_steps.KEEP_SECONDS - 60))
    asked(state="failed")

    assert not Repair.objects.filter(pk=old.pk).exists()


@ONCE
def test_under_test_nobody_is_told(monkeypatch):
    monkeypatch.setattr(type(backends), "alias_for", None)
    backends.look_for_repairs("default")


@ONCE
def test_a_repair_names_what_and_which():
    assert str(asked(state="failed")) == "retry {'state': 'failed'}"
