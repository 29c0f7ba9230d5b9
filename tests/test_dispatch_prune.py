"""What is old goes, from the command line."""

import signal
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from signal_dispatch import pruning
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery
from tests.deliveries import delivery
from tests.test_pruning import finished

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def run(*arguments):
    out = StringIO()
    call_command("dispatch_prune", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def left():
    return list(Delivery.objects.order_by("id"))


def test_the_retention_says_what_goes():
    kept = [finished("delivered", 6), finished("failed", 29), delivery(object_pk=9)]
    finished("delivered", 8)
    finished("failed", 31)

    assert run() == "2 deliveries are deleted.\n"
    assert left() == kept


def test_an_age_may_say_it_whatever_the_retention(settings):
    settings.SIGNAL_DISPATCH_RETENTION = {"delivered": None, "failed": None}
    young = finished("delivered", 0.4)
    finished("failed", 0.6)
    assert run() == "No deliveries at all are old enough: nothing to delete.\n"

    assert run("--older-than", "0.5") == "1 deliveries are deleted.\n"
    assert left() == [young]
    run("--older-than", "0")
    assert left() == []


@pytest.mark.parametrize("days", ["-1", "nan", "1e9"])
def test_an_age_that_is_none_is_refused(days):
    with pytest.raises(CommandError, match="--older-than takes a number of days"):
        run("--older-than", days)


def test_filters_say_which():
    finished("failed", 40, object_pk=1)
    kept = [finished("failed", 40, object_pk=2), finished("delivered", 40, object_pk=1)]
    run("--object", "shop.order:1", "--state", "failed")

    assert left() == kept


def test_a_dry_run_counts_and_does_nothing():
    finished("delivered", 8)
    finished("failed", 31)
    said = run("--dry-run").splitlines()

    assert said == [
        "Database 'default': 2 of 2 deliveries would be deleted.",
        "ENDPOINT  DISPATCH   STATE      DELIVERIES",
        "crm       shop.Told  delivered  1",
        "crm       shop.Told  failed     1",
    ]
    assert len(left()) == 2


def test_a_dry_run_judges_as_the_real_one_does(monkeypatch):
    monkeypatch.setattr(pruning, "STEP", 2)
    for _ in range(3):
        finished()
    finished(lane="a")
    delivery(lane="a")

    assert run("--dry-run").splitlines() == [
        "Database 'default': 3 of 4 deliveries would be deleted.",
        "ENDPOINT  DISPATCH   STATE      DELIVERIES",
        "crm       shop.Told  delivered  3",
        "1 would stay: their lanes still need them.",
    ]
    assert len(left()) == 5
    assert run() == "3 deliveries are deleted.\n1 stay: their lanes still need them.\n"


def test_what_a_lane_needs_stays_and_is_told():
    finished(lane="a")
    delivery(lane="a")

    assert run() == "0 deliveries are deleted.\n1 stay: their lanes still need them.\n"


def test_each_database_has_its_turn():
    finished()
    other = {"state": "delivered", "available_at": None, "finished_at": DatabaseNow(-9e6)}
    delivery("other", **other)
    run("--database", "other")

    assert not Delivery.objects.using("other").exists()
    assert len(left()) == 1


def test_told_to_stop_it_ends_after_the_step_and_a_second_start_goes_on(monkeypatch):
    monkeypatch.setattr(pruning, "STEP", 2)
    for _ in range(5):
        finished()
    step = pruning.step

    def interrupted(*arguments):
        made = step(*arguments)
        signal.raise_signal(signal.SIGTERM)
        return made

    monkeypatch.setattr(pruning, "step", interrupted)
    with pytest.raises(CommandError, match="Start it again to go on"):
        run()
    assert len(left()) == 3
    monkeypatch.setattr(pruning, "step", step)
    assert run() == "3 deliveries are deleted.\n"


def test_a_faulty_setting_is_told(settings):
    settings.SIGNAL_DISPATCH_RETENTION = {"delivered": 7}
    with pytest.raises(CommandError, match=r"must be a timedelta.*Correct it in your settings"):
        run()
    settings.SIGNAL_DISPATCH_RETENTION = {"delivered": timedelta(days=7)}
    run()
